"""SCTP and DTLS with a data path of our own: five to ten times what aiortc's moves.

aiortc still makes and ends the association and the DTLS session; what carries the stream, DATA
and SACK, is taken here before it. Where its time goes, and what is done about it:

* one datagram per turn of the event loop, two tasks for each: all that waits is taken at once,
* a SACK for every packet, and a look at every packet under way for each: one SACK for many
  (`_SACK_EVERY`), and `outbound` looks only at what a SACK newly says,
* 1160 bytes in a packet: as many as the path takes (`_PAYLOADS`),
* Reno: see `congestion`.

Works on private names of aiortc. `missing` says which of them are not where they were; then a
channel stands on aiortc's own (`stack`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Final

from aioice.ice import Connection
from aiortc import RTCDataChannel, RTCDtlsTransport, RTCIceTransport
from aiortc.rtcsctptransport import (
    USERDATA_MAX_LENGTH,
    Chunk,
    DataChunk,
    HeartbeatAckChunk,
    HeartbeatChunk,
    RTCSctpTransport,
    SackChunk,
)
from OpenSSL import SSL

from p2psync.net.webrtc.ice import GuardedConnection
from p2psync.net.webrtc.inbound import Inbound, Violation
from p2psync.net.webrtc.outbound import Outbound
from p2psync.net.webrtc.packets import BINARY, Data, Packets, Sack
from p2psync.net.webrtc.sctp import PORT, GuardedSctp
from p2psync.net.webrtc.stopping import in_background

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 64 * 1024
_BURST: Final = 32  # packets encrypted and sent in one go
_BATCH: Final = 64  # packets read in one go
_SACK_EVERY: Final = 16  # packets, when all is well
_SACK_WITHIN_S: Final = 0.001
_PACE_S: Final = 0.002  # how often a paced sender is woken; timers are no finer
_ROOM: Final = 1024 * 1024  # told in SACKs, and of no meaning: the channel tells its own
_RECORD: Final = 2_048
# Of a packet, tried by a heartbeat of that size; with the headers of SCTP, DTLS, UDP and IPv6
# 1497 and 1425 bytes.
_PAYLOADS: Final = (1_384, 1_312)
_PROBES: Final = 3
_PROBE_AGAIN_S: Final = 1.0
_HEARTBEAT_INFO: Final = 1


_NEEDED: Final = (
    (RTCDataChannel, "_addBufferedAmount"),
    (RTCDtlsTransport, "_data_receiver _recv_next _ssl _write_ssl"),
    (RTCIceTransport, "_connection"),
    (Connection, "_nominated _queue"),
    (
        RTCSctpTransport,
        "_association_state _data_channel_send _handle_data _last_received_tsn _local_tsn"
        " _local_verification_tag _receive _receive_chunk _receive_data_chunk"
        " _receive_sack_chunk _remote_verification_tag _send_chunk _set_state",
    ),
)


def missing() -> list[str]:
    """Return the names of aiortc and aioice that are used here and are not there."""
    return [
        f"{owner.__name__}.{name}"
        for owner, names in _NEEDED
        for name in names.split()
        if not hasattr(owner, name) and name not in owner.__init__.__code__.co_names
    ]


class FastSctp(GuardedSctp):
    """An association whose stream takes the short way."""

    def __init__(self, dtls: RTCDtlsTransport, violated: Callable[[str], None]) -> None:
        """dtls: a `FastDtls`. violated: told once what the peer did."""
        super().__init__(dtls, violated)
        assert isinstance(dtls, FastDtls)
        self._dtls = dtls
        self._clock = asyncio.get_running_loop()
        self._wire: RTCDataChannel | None = None
        self._packets: Packets | None = None
        self._inbound: Inbound | None = None
        self._outbound: Outbound | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._sack_timer: asyncio.TimerHandle | None = None
        self._payload = USERDATA_MAX_LENGTH

    @property
    def bandwidth(self) -> float:  # noqa: D102 - told in GuardedSctp
        return self._outbound.congestion.bandwidth if self._outbound is not None else 0.0

    # what comes in

    async def _handle_data(self, data: bytes) -> None:
        heard = self._packets.read(data) if self._prepared() and self._packets else None
        if isinstance(heard, Data):
            await self._take(heard)
        elif isinstance(heard, Sack):
            self._acknowledged(heard)
        else:
            await super()._handle_data(data)

    async def _receive_chunk(self, chunk: Chunk) -> None:
        if isinstance(chunk, HeartbeatAckChunk):
            self._answered(chunk)
        else:
            await super()._receive_chunk(chunk)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        """Take a DATA chunk that shares its packet with others: never one of ours."""
        if self._prepared():
            data = (chunk.tsn, chunk.flags, chunk.stream_id, chunk.protocol, chunk.user_data)
            await self._take(Data(*data))

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        """Take a SACK chunk that shares its packet with others."""
        if self._prepared():
            self._acknowledged(Sack(chunk.cumulative_tsn, chunk.gaps))

    def _prepared(self) -> bool:
        """Say whether the peer's INIT has been seen; make the two halves when it has."""
        if self._packets is None and self._last_received_tsn is not None:
            self._packets = Packets(
                PORT, self._local_verification_tag, self._remote_verification_tag
            )
            self._inbound = Inbound(self._last_received_tsn, MESSAGE_BYTES)
            self._outbound = Outbound(self._packets, self._local_tsn, self._payload)
        return self._packets is not None

    async def _take(self, data: Data) -> None:
        assert self._inbound is not None
        try:
            messages = self._inbound.take(data)
        except Violation as violation:
            self._violated(str(violation))
            return
        for message in messages:
            await self._receive(0, BINARY, message)

    def _acknowledged(self, sack: Sack) -> None:
        assert self._outbound is not None
        self._outbound.acknowledged(time.monotonic(), sack)

    # what goes out

    def _data_channel_send(self, channel: RTCDataChannel, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        assert data
        assert self._prepared()
        assert self._outbound is not None
        self._wire = channel
        channel._addBufferedAmount(len(data))
        self._outbound.put(data)
        self._push()

    def _push(self) -> None:
        """Send what may leave."""
        if self._association_state != self.State.ESTABLISHED or self._outbound is None:
            return
        while not self._dtls.blocked:
            packets, cut = self._outbound.packets(time.monotonic(), _BURST)
            if cut and self._wire is not None:
                self._wire._addBufferedAmount(-cut)
            if not packets:
                break
            self._dtls.send_all(packets)
        self._arm()

    def _arm(self) -> None:
        """Have one timer at the next moment when something is to be done unasked."""
        assert self._outbound is not None
        now = time.monotonic()
        at = min(self._outbound.due, max(self._outbound.blocked_until, now + _PACE_S))
        if at < self._timer_at:  # one that rings too early does no harm
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = self._clock.call_later(max(0.0, at - now), self._rings)

    def _rings(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self._outbound is not None and self._association_state == self.State.ESTABLISHED:
            now = time.monotonic()
            if now >= self._outbound.due:
                self._outbound.expired(now)
            self._push()

    def caught_up(self) -> None:
        """All that had arrived was taken: acknowledge it, and send what may leave now."""
        if self._inbound is not None and self._inbound.unsaid:
            if self._inbound.urgent or self._inbound.unsaid >= _SACK_EVERY:
                self._say_sack()
            elif self._sack_timer is None:
                self._sack_timer = self._clock.call_later(_SACK_WITHIN_S, self._say_sack)
        self._push()

    def _say_sack(self) -> None:
        if self._sack_timer is not None:
            self._sack_timer.cancel()
            self._sack_timer = None
        inbound = self._inbound
        if inbound is not None and self._packets is not None and inbound.unsaid:
            self._dtls.send_all([self._packets.sack(inbound.last, _ROOM, inbound.gaps())])
            inbound.said()

    # beginning and end

    def _set_state(self, state: RTCSctpTransport.State) -> None:
        begins = state == self.State.ESTABLISHED != self._association_state
        super()._set_state(state)
        if begins:
            self._dtls.on_writable(self._push)
            self._probe(_PROBES)
        elif state == self.State.CLOSED:
            for timer in (self._timer, self._sack_timer):
                if timer is not None:
                    timer.cancel()

    def _probe(self, left: int) -> None:
        """Ask how large packets may be; what is not answered does not pass, or was lost."""
        if self._association_state != self.State.ESTABLISHED:
            return
        for payload in _PAYLOADS:
            if payload > self._payload:
                chunk = HeartbeatChunk()
                chunk.params = [(_HEARTBEAT_INFO, bytes(payload + 8))]
                in_background(self._send_probe(chunk))
        if left > 1 and self._payload < max(_PAYLOADS):
            self._clock.call_later(_PROBE_AGAIN_S, self._probe, left - 1)

    async def _send_probe(self, chunk: HeartbeatChunk) -> None:
        try:
            await self._send_chunk(chunk)
        except ConnectionError as error:
            log.debug("no probe: %s", error)

    def _answered(self, chunk: HeartbeatAckChunk) -> None:
        for _, info in chunk.params:
            payload = len(info) - 8
            if payload in _PAYLOADS and payload > self._payload and self._outbound is not None:
                self._payload = self._outbound.payload = payload


class FastDtls(RTCDtlsTransport):
    """A DTLS session that takes and sends datagrams many at a time."""

    @property
    def blocked(self) -> bool:
        """True while the network device takes nothing."""
        return self._guarded().blocked

    def on_writable(self, call: Callable[[], None]) -> None:
        """Call this whenever `blocked` has become False."""
        self._guarded().on_writable(call)

    def send_all(self, packets: list[bytearray]) -> None:
        """Encrypt and send some packets of SCTP; with no connection, do nothing."""
        if self.state != "connected" or self._ssl is None:
            return
        records = []
        try:
            for packet in packets:
                self._ssl.send(packet)
                records.append(self._ssl.bio_read(_RECORD))
        except SSL.Error as error:
            log.debug("cannot encrypt: %r", error)
        self._guarded().send_now(records)

    async def _recv_next(self) -> None:
        await super()._recv_next()
        receiver = self._data_receiver
        if not isinstance(receiver, FastSctp) or self._ssl is None:
            return
        waiting = self._guarded().take_waiting(_BATCH)
        for datagram in waiting:
            self._ssl.bio_write(datagram)
            try:
                packet = self._ssl.recv(_RECORD)
            except SSL.ZeroReturnError as error:
                raise ConnectionError from error
            except SSL.Error:
                continue
            await receiver._handle_data(packet)
        if waiting:
            await self._write_ssl()
        receiver.caught_up()

    def _guarded(self) -> GuardedConnection:
        connection = self.transport._connection
        assert isinstance(connection, GuardedConnection)
        return connection
