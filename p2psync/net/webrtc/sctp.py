"""SCTP for one reliable stream between two of us: bounded, and with less work per packet.

aiortc's own is right and general; what costs it most is a SACK for every packet and a look at
every packet under way for every SACK. The private names used are guarded by tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiortc import RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import (
    SCTP_DATA_LAST_FRAG,
    USERDATA_MAX_LENGTH,
    DataChunk,
    ForwardTsnChunk,
    SackChunk,
    tsn_plus_one,
)

from p2psync.net.webrtc.stopping import in_background
from p2psync.protocol import limits

PORT: Final = 5000  # SCTP's, inside DTLS; the usual one
_REASSEMBLY: Final = 8 * limits.MIB  # what SCTP holds out of order
_AHEAD: Final = _REASSEMBLY // 1_000  # packets
_BINARY: Final = 53  # WebRTC's number for a binary message
_SACK_EVERY: Final = 4  # packets, when more of them wait
_SACK_WITHIN_S: Final = 0.02
_BURST: Final = 2 * _SACK_EVERY * USERDATA_MAX_LENGTH  # sent at once, where cwnd has room


class GuardedSctp(RTCSctpTransport):
    """What a peer tries beyond one stream of binary messages is told, before it costs much."""

    def __init__(
        self,
        dtls: RTCDtlsTransport,
        violated: Callable[[str], None],
        more_waits: Callable[[], bool],
    ) -> None:
        """violated: told once what the peer did. more_waits: are there packets to be read?"""
        super().__init__(dtls, PORT)
        self._violated = violated
        self._more_waits = more_waits
        self._unsacked = 0
        self._sack_timer: asyncio.TimerHandle | None = None
        self._lossy = False  # may a packet under way be marked for sending again?

    # what comes in

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if stream_id or pp_id != _BINARY:
            self._violated("something else than a binary message")
        else:
            await super()._receive(stream_id, pp_id, data)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        last = self._last_received_tsn
        if chunk.stream_id or not chunk.user_data or self._too_far(chunk.tsn):
            self._violated("another stream, or too much out of order")
            return
        inside = not chunk.flags & SCTP_DATA_LAST_FRAG and not self._sack_misordered
        if inside and last is not None and chunk.tsn == tsn_plus_one(last):
            # in order and not the end of a message: there is no message to look for
            self._sack_needed = True
            self._last_received_tsn = chunk.tsn
            self._get_inbound_stream(0).add_chunk(chunk)
            self._advertised_rwnd -= len(chunk.user_data)
        else:
            await super()._receive_data_chunk(chunk)

    def _too_far(self, tsn: int) -> bool:
        """Say whether there would be too much to remember of what is out of order."""
        ahead = (tsn - (self._last_received_tsn or 0)) % 2**32
        return _AHEAD < ahead < 2**31 or self._advertised_rwnd < limits.MIB - _REASSEMBLY

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        self._violated("skipped data on a reliable stream")

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        # each gap costs as many steps as it is wide
        if all(0 < first <= last <= len(self._sent_queue) for first, last in chunk.gaps):
            self._lossy |= bool(chunk.gaps)
            await super()._receive_sack_chunk(chunk)

    # what goes out

    async def _send_sack(self) -> None:
        self._unsacked += 1
        orderly = not self._sack_misordered and not self._sack_duplicates
        if orderly and self._unsacked < _SACK_EVERY and self._more_waits():
            if self._sack_timer is None:  # in case what waits is no packet of SCTP's
                loop = asyncio.get_running_loop()
                self._sack_timer = loop.call_later(_SACK_WITHIN_S, self._sack_now)
            return
        self._unsacked = 0
        if self._sack_timer is not None:
            self._sack_timer.cancel()
            self._sack_timer = None
        await super()._send_sack()

    def _sack_now(self) -> None:
        self._sack_timer = None
        self._unsacked = _SACK_EVERY
        if self._sack_needed and self._association_state == self.State.ESTABLISHED:
            in_background(self._send_sack())

    def _t3_expired(self) -> None:
        self._lossy = True
        super()._t3_expired()

    async def _transmit(self) -> None:
        if self._lossy or self._fast_recovery_exit is not None or self._forward_tsn_chunk:
            await super()._transmit()
            self._lossy = any(chunk._retransmit for chunk in self._sent_queue)
            return
        room = min(self._flight_size + _BURST, self._cwnd)
        while self._outbound_queue and self._flight_size < room:
            chunk = self._outbound_queue.popleft()
            self._sent_queue.append(chunk)
            self._flight_size_increase(chunk)
            chunk._sent_count += 1
            chunk._sent_time = time.time()
            await self._send_chunk(chunk)
            if not self._t3_handle:
                self._t3_start()
