"""A channel over one WebRTC data channel: frames in pieces, with room told by the receiver.

The data channel carries the same frames as a TCP connection, cut into pieces that with one byte
before each, which says what it is, have at most 64 KiB:

    00  a piece of the stream of frames
    01  u64: how many bytes of that stream the receiver has room for, counted from the start
    02  the end: nothing follows

SCTP as it is here has no flow control towards a slow reader, hence the second kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from typing import Final

from aiortc import (
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsTransport,
    RTCIceTransport,
    RTCSctpCapabilities,
)

from p2psync.errors import ChannelClosedError, P2PSyncError, RemoteProtocolError
from p2psync.net.addresses import printed
from p2psync.net.channel import CLOSE_TIMEOUT_S
from p2psync.net.inbox import Intake
from p2psync.net.webrtc.sctp import PORT, GuardedSctp
from p2psync.net.webrtc.stopping import in_background, stop
from p2psync.protocol import limits
from p2psync.protocol.framing import header

_PIECE: Final = 64 * limits.KIB - 1
_PIECE_LEAST: Final = 8 * limits.KIB - 1
_PIECE_S: Final = 0.005  # of the path's time in one piece
# Handed to SCTP and not sent: what an urgent message has to wait for.
_QUEUED: Final = 1 * limits.MIB - _PIECE
_QUEUED_LEAST: Final = 64 * limits.KIB
_QUEUED_S: Final = 0.02
# Sent, and not taken by the receiving task: 100 Mbit/s at a round trip of 100 ms with 40 ms of
# queue need 1.75 MiB of it.
_WINDOW: Final = 4 * limits.MIB
_WINDOW_STEP: Final = _WINDOW // 8  # how much more is worth a message
_DATA, _ROOM, _END = b"\x00", b"\x01", b"\x02"


class WebRtcChannel:
    """A channel over one data channel; made by `WebRtcEnd`."""

    transport = "webrtc"

    def __init__(
        self,
        ice: RTCIceTransport,
        dtls: RTCDtlsTransport,
        sctp: type[GuardedSctp],
        dialled: bool,
        binding: bytes,
    ) -> None:
        """Take over what is connected; `open` starts SCTP on it."""
        self.address = _selected(ice)
        self.dialled = dialled
        self.binding = binding
        self._ice = ice
        self._dtls = dtls
        self._sctp = sctp(dtls, self._violated)
        parameters = RTCDataChannelParameters(negotiated=True, id=0)
        self._wire = RTCDataChannel(self._sctp, parameters)
        self._intake = Intake(self._grant, self._violated)
        self._inbox = self._intake.inbox
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
        self._intake.admit()

    async def send(self, message: bytes) -> None:
        """Hand one message to SCTP, piece by piece, as it and the peer take it."""
        rest = memoryview(header(len(message)) + message)
        while rest:
            await self._wait_for_room()
            size = min(self._piece(), len(rest), self._may_send - self._sent)
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
            await self._sctp.start(RTCSctpCapabilities(maxMessageSize=_PIECE + 1), PORT)
            await self._opened.wait()
        except ConnectionError as error:
            raise ChannelClosedError("connection lost") from error
        if self._inbox.ended:
            raise ChannelClosedError("connection lost")

    async def _wait_for_room(self) -> None:
        while not self._inbox.ended and (
            self._wire.bufferedAmount > self._queue_limit() or self._sent >= self._may_send
        ):
            self._wire.bufferedAmountLowThreshold = self._queue_limit() // 2
            self._room.clear()
            await self._room.wait()
        if self._inbox.ended or self._wire.readyState != "open":
            raise ChannelClosedError("not connected")

    def _queue_limit(self) -> int:
        """Return how much may wait in SCTP: few milliseconds' worth, where that is known."""
        bandwidth = self._sctp.bandwidth or math.inf
        return int(min(_QUEUED, max(_QUEUED_LEAST, bandwidth * _QUEUED_S)))

    def _piece(self) -> int:
        """Return how large a piece is to be: on a slow path smaller than that queue."""
        bandwidth = self._sctp.bandwidth or math.inf
        return int(min(_PIECE, max(_PIECE_LEAST, bandwidth * _PIECE_S)))

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
        self._intake.feed(piece)
        self._grant()

    def _grant(self) -> None:
        """Tell the peer how far it may go, when that is worth a message."""
        room = self._received - self._intake.waiting_bytes + _WINDOW
        if room - self._granted >= _WINDOW_STEP and self._wire.readyState == "open":
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
            self._stopping = in_background(stop(self._sctp, self._dtls, self._ice))


def _forget_errors_of(dtls: RTCDtlsTransport) -> None:
    """Hostile bytes may end the task that reads; its error is told by the state already."""
    if dtls._task is not None:
        dtls._task.add_done_callback(lambda task: task.cancelled() or task.exception())


def _selected(ice: RTCIceTransport) -> str:
    pair = ice._connection._nominated.get(1)
    return printed(*pair.remote_addr) if pair is not None else "gone"
