"""SCTP for one reliable stream between two of us, bounded: aiortc's own, with a guard.

Used as it is where aiortc is not as `fast` knows it. The private names used are guarded by
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from aiortc import RTCDtlsTransport, RTCSctpTransport
from aiortc.rtcsctptransport import DataChunk, ForwardTsnChunk, SackChunk

from p2psync.net.webrtc.inbound import AHEAD
from p2psync.net.webrtc.packets import BINARY, sound
from p2psync.protocol import limits

PORT: Final = 5000  # SCTP's, inside DTLS; the usual one
_AHEAD_PACKETS: Final = AHEAD // 1_000


class GuardedSctp(RTCSctpTransport):
    """What a peer tries beyond one stream of binary messages is told, before it costs much."""

    def __init__(self, dtls: RTCDtlsTransport, violated: Callable[[str], None]) -> None:
        """violated: told once what the peer did."""
        super().__init__(dtls, PORT)
        self._violated = violated

    @property
    def bandwidth(self) -> float:
        """Bytes per second that the path takes, as measured of late; 0: not known."""
        return 0.0

    async def _handle_data(self, data: bytes) -> None:
        if sound(data):
            await super()._handle_data(data)

    async def _receive(self, stream_id: int, pp_id: int, data: bytes) -> None:
        if stream_id or pp_id != BINARY:
            self._violated("something else than a binary message")
        else:
            await super()._receive(stream_id, pp_id, data)

    async def _receive_data_chunk(self, chunk: DataChunk) -> None:
        if chunk.stream_id or not chunk.user_data or self._too_far(chunk.tsn):
            self._violated("another stream, or too much out of order")
        else:
            await super()._receive_data_chunk(chunk)

    def _too_far(self, tsn: int) -> bool:
        """Say whether there would be too much to remember of what is out of order."""
        ahead = (tsn - (self._last_received_tsn or 0)) % 2**32
        return _AHEAD_PACKETS < ahead < 2**31 or self._advertised_rwnd < limits.MIB - AHEAD

    async def _receive_forward_tsn_chunk(self, chunk: ForwardTsnChunk) -> None:
        self._violated("skipped data on a reliable stream")

    async def _receive_sack_chunk(self, chunk: SackChunk) -> None:
        # each gap costs as many steps as it is wide
        if all(0 < first <= last <= len(self._sent_queue) for first, last in chunk.gaps):
            await super()._receive_sack_chunk(chunk)
