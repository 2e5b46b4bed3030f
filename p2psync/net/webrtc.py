"""The WebRTC transport: messages over one data channel, DTLS and ICE, without SDP.

The only module that knows aiortc. Import it when it is first needed: it costs 30 MB.

What a peer must know of us to connect is a `Signal`, which travels sealed and signed in an
envelope. The data channel carries the same frames as a TCP connection, cut into pieces that
with one byte before each, which says what it is, have at most 64 KiB:

    00  a piece of the stream of frames
    01  u64: how many bytes of that stream the receiver has room for, counted from the start
    02  the end: nothing follows

SCTP as it is here has no flow control towards a slow reader, hence the second kind.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import logging
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Final, NamedTuple

from aiortc import (
    RTCCertificate,
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
    RTCSctpCapabilities,
    RTCSctpTransport,
)
from aiortc.rtcsctptransport import DataChunk, ForwardTsnChunk, SackChunk

from p2psync.errors import ChannelClosedError, P2PSyncError, RemoteProtocolError
from p2psync.net.addresses import printed
from p2psync.net.certificate import Certificate
from p2psync.net.channel import CLOSE_TIMEOUT_S
from p2psync.net.ice import GuardedConnection, own_addresses
from p2psync.net.inbox import Inbox
from p2psync.protocol import limits
from p2psync.protocol.envelope import Candidate, CandidateType
from p2psync.protocol.framing import FrameReader, header

log = logging.getLogger(__name__)
for _noisy in ("aiortc", "aioice"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)

_PORT: Final = 5000  # SCTP's, inside DTLS; the usual one
_PIECE: Final = 64 * limits.KIB - 1
_QUEUED: Final = 1 * limits.MIB - _PIECE  # handed to SCTP and not sent
_QUEUED_LOW: Final = 256 * limits.KIB
_WINDOW: Final = 2 * limits.MIB  # sent, and not taken by the receiving task
_REASSEMBLY: Final = 8 * limits.MIB  # what SCTP holds out of order
_BINARY: Final = 53  # WebRTC's number for a binary message
_DATA, _ROOM, _END = b"\x00", b"\x01", b"\x02"

_TYPES: Final = {
    CandidateType.HOST: "host",
    CandidateType.REFLEXIVE: "srflx",
    CandidateType.RELAYED: "relay",
}
_TYPE_PREFERENCE: Final = {
    CandidateType.HOST: 126,
    CandidateType.REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}


class Signal(NamedTuple):
    """What one side must know of the other to connect to it.

    seed: 16 random bytes of which its ICE name and password are made. fingerprint: SHA-256 of
    its certificate. candidates: where it may be reached, best first.
    """

    seed: bytes
    fingerprint: bytes
    candidates: tuple[Candidate, ...]


class WebRtcEnd:
    """One attempt at a connection, on one side: `gather`, exchange signals, `connect`."""

    def __init__(
        self,
        certificate: Certificate,
        *,
        offering: bool,
        addresses: Sequence[str] | None = None,
    ) -> None:
        """addresses: numeric local ones to use; None: all there are."""
        self._certificate = certificate
        self._offering = offering
        self._seed = secrets.token_bytes(16)
        gatherer = RTCIceGatherer(iceServers=[])
        name, password = _credentials(self._seed)
        gatherer._connection = GuardedConnection(
            name, password, addresses or own_addresses(), offering
        )
        self._gatherer = gatherer
        self._ice = RTCIceTransport(gatherer)
        own = RTCCertificate(certificate.key, certificate.x509)
        self._dtls = RTCDtlsTransport(self._ice, [own])

    async def gather(self) -> Signal:
        """Open our sockets; return what the other side must know."""
        await self._gatherer.gather()
        candidates = tuple(
            Candidate(CandidateType.HOST, ipaddress.ip_address(found.ip), found.port)
            for found in self._gatherer.getLocalCandidates()
        )
        return Signal(self._seed, self._certificate.fingerprint, candidates)

    async def connect(self, theirs: Signal, timeout_s: float) -> WebRtcChannel:
        """Connect to the other side, which does the same with our signal.

        Raises:
            ChannelClosedError: no path was found in time, or at its end is somebody else.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connect(theirs)
        except TimeoutError as error:
            await self.close()
            raise ChannelClosedError("no direct path was found in time") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give up and close the sockets; for an end that is not connected."""
        await asyncio.shield(_in_background(_stop(self._dtls, self._ice)))

    async def _connect(self, theirs: Signal) -> WebRtcChannel:
        for candidate in theirs.candidates:
            if _usable(candidate):
                await self._ice.addRemoteCandidate(_candidate(candidate))
        await self._ice.addRemoteCandidate(None)
        name, password = _credentials(theirs.seed)
        await self._ice.start(RTCIceParameters(usernameFragment=name, password=password))
        if self._ice.state != "completed":
            raise ChannelClosedError("no direct path was found")
        fingerprint = RTCDtlsFingerprint("sha-256", theirs.fingerprint.hex(":").upper())
        await self._dtls.start(RTCDtlsParameters(fingerprints=[fingerprint]))
        if self._dtls.state != "connected":
            raise ChannelClosedError("what answered is not the device that signed for it")
        ours = self._certificate.fingerprint
        in_order = (ours, theirs.fingerprint) if self._offering else (theirs.fingerprint, ours)
        binding = hashlib.sha256(b"".join(in_order)).digest()
        channel = WebRtcChannel(self._ice, self._dtls, self._offering, binding)
        await channel.open()
        return channel


class WebRtcChannel:
    """A channel over one data channel; made by `WebRtcEnd`."""

    transport = "webrtc"

    def __init__(
        self, ice: RTCIceTransport, dtls: RTCDtlsTransport, dialled: bool, binding: bytes
    ) -> None:
        """Take over what is connected; `open` starts SCTP on it."""
        self.address = _selected(ice)
        self.dialled = dialled
        self.binding = binding
        self._ice = ice
        self._dtls = dtls
        self._sctp = _GuardedSctp(dtls, self._violated)
        parameters = RTCDataChannelParameters(negotiated=True, id=0)
        self._wire = RTCDataChannel(self._sctp, parameters)
        self._wire.bufferedAmountLowThreshold = _QUEUED_LOW
        self._frames = FrameReader()
        self._allowance: int | None = limits.UNAUTHENTICATED_BYTES
        self._inbox = Inbox(self._taken)
        self._received = 0  # bytes of the peer's stream
        self._granted = _WINDOW  # up to where the peer may send
        self._sent = 0  # bytes of our stream
        self._may_send = _WINDOW  # up to where we may
        self._opened = asyncio.Event()
        self._room = asyncio.Event()
        self._lost = asyncio.Event()
        self._closing = False
        self._stopping: asyncio.Task[None] | None = None

    # the channel

    def admit(self) -> None:
        """Lift the limits of an unauthenticated channel."""
        self._frames.limit = limits.MESSAGE_BYTES
        self._allowance = None

    async def send(self, message: bytes) -> None:
        """Hand one message to SCTP, piece by piece, as it and the peer take it."""
        rest = memoryview(header(len(message)) + message)
        while rest:
            await self._wait_for_room()
            size = min(_PIECE, len(rest), self._may_send - self._sent)
            self._wire.send(_DATA + rest[:size])
            self._sent += size
            rest = rest[size:]

    async def receive(self) -> bytes:
        """Return the next message."""
        return await self._inbox.get()

    async def close(self) -> None:
        """Say that nothing follows; end when the peer has read that, a second at most."""
        if not self._closing:
            self._closing = True
            self._inbox.discard()
            self._room.set()
            if self._wire.readyState == "open":
                self._wire.send(_END)
            else:
                self.abort("closed here")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._lost.wait()
        finally:
            self.abort("closed here")
        if self._stopping is not None:
            await asyncio.shield(self._stopping)

    def abort(self, reason: str) -> None:
        """Drop the connection now; what was not acknowledged is lost."""
        self._end(lambda: ChannelClosedError(reason))

    # inside

    async def open(self) -> None:
        """Start SCTP; return when the data channel stands."""
        self._wire.on("open", self._opened.set)
        self._wire.on("close", lambda: self.abort("connection lost"))
        self._wire.on("message", self._arrived)
        self._wire.on("bufferedamountlow", self._room.set)
        self._dtls.on("statechange", self._dtls_changed)
        _forget_errors_of(self._dtls)
        try:
            await self._sctp.start(RTCSctpCapabilities(maxMessageSize=_PIECE + 1), _PORT)
            await self._opened.wait()
        except ConnectionError as error:
            raise ChannelClosedError("connection lost") from error
        if self._inbox.ended:
            raise ChannelClosedError("connection lost")

    async def _wait_for_room(self) -> None:
        while not self._inbox.ended and (
            self._wire.bufferedAmount > _QUEUED or self._sent >= self._may_send
        ):
            self._room.clear()
            await self._room.wait()
        if self._inbox.ended or self._wire.readyState != "open":
            raise ChannelClosedError("not connected")

    def _arrived(self, data: bytes | str) -> None:
        kind, rest = data[:1], data[1:]
        if self._closing:
            if kind == _END:
                self.abort("closed by the peer")
        elif not isinstance(rest, bytes):
            self._violated("text")
        elif kind == _DATA and rest:
            self._piece_arrived(rest)
        elif kind == _ROOM and len(rest) == 8:
            self._may_send = max(self._may_send, int.from_bytes(rest, "big"))
            self._room.set()
        elif kind == _END:
            self.abort("closed by the peer")
        else:
            self._violated("a piece of an unknown kind")

    def _piece_arrived(self, piece: bytes) -> None:
        self._received += len(piece)
        if self._received > self._granted:
            self._violated("more than there is room for")
            return
        try:
            for message in self._frames.feed(piece):
                if self._allowance is not None:
                    self._allowance -= len(message)
                    if self._allowance < 0:
                        raise RemoteProtocolError("too much before it was authenticated")
                self._inbox.put(message)
        except RemoteProtocolError as error:
            self._violated(str(error))
        else:
            self._grant()

    def _taken(self, _size: int) -> None:
        self._grant()

    def _grant(self) -> None:
        """Tell the peer how far it may go, when that is worth a message."""
        room = self._received - self._inbox.waiting_bytes + _WINDOW
        if room - self._granted >= _WINDOW // 4 and self._wire.readyState == "open":
            self._granted = room
            self._wire.send(_ROOM + room.to_bytes(8, "big"))

    def _violated(self, what: str) -> None:
        self._end(lambda: RemoteProtocolError(what))

    def _dtls_changed(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self.abort("connection lost")

    def _end(self, error: Callable[[], P2PSyncError]) -> None:
        self._inbox.end(error)
        self._opened.set()
        self._room.set()
        self._lost.set()
        if self._stopping is None:
            self._stopping = _in_background(_stop(self._sctp, self._dtls, self._ice))


class _GuardedSctp(RTCSctpTransport):
    """SCTP for one reliable stream; what else the peer tries ends it, before it costs much."""

    def __init__(self, dtls: RTCDtlsTransport, violated: Callable[[str], None]) -> None:
        super().__init__(dtls, _PORT)
        self._violated = violated

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if stream_id or pp_id != _BINARY:
            self._violated("something else than a binary message")
        else:
            await super()._receive(stream_id, pp_id, data)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if chunk.stream_id or self._advertised_rwnd < limits.MIB - _REASSEMBLY:
            self._violated("another stream, or too much out of order")
        else:
            await super()._receive_data_chunk(chunk)

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        self._violated("skipped data on a reliable stream")

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        # each gap costs as many steps as it is wide
        if all(0 < first <= last <= len(self._sent_queue) for first, last in chunk.gaps):
            await super()._receive_sack_chunk(chunk)


_background: set[asyncio.Task[None]] = set()


def _in_background(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Run what closes a connection to its end, whatever becomes of who started it."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def _stop(*layers: RTCSctpTransport | RTCDtlsTransport | RTCIceTransport) -> None:
    for layer in layers:
        try:
            await layer.stop()
        except Exception as error:
            log.debug("while closing a connection: %r", error)


def _forget_errors_of(dtls: RTCDtlsTransport) -> None:
    """Hostile bytes may end the task that reads; its error is told by the state already."""
    if dtls._task is not None:
        dtls._task.add_done_callback(lambda task: task.cancelled() or task.exception())


def _credentials(seed: bytes) -> tuple[str, str]:
    """Return the ICE name and password that belong to a seed."""
    name = base64.b64encode(hashlib.sha256(b"p2psync/1 ice name\0" + seed).digest())
    password = base64.b64encode(hashlib.sha256(b"p2psync/1 ice password\0" + seed).digest())
    return name[:8].decode(), password[:32].decode()


def _usable(candidate: Candidate) -> bool:
    address = candidate.address
    return candidate.port > 0 and not (address.is_multicast or address.is_unspecified)


def _candidate(candidate: Candidate) -> RTCIceCandidate:
    preference = _TYPE_PREFERENCE[candidate.type]
    host = str(candidate.address)
    return RTCIceCandidate(
        component=1,
        foundation=hashlib.sha256(f"{candidate.type} {host}".encode()).hexdigest()[:16],
        ip=host,
        port=candidate.port,
        priority=(preference << 24) + (65535 << 8) + 255,
        protocol="udp",
        type=_TYPES[candidate.type],
    )


def _selected(ice: RTCIceTransport) -> str:
    pair = ice._connection._nominated.get(1)
    return printed(*pair.remote_addr) if pair is not None else "gone"
