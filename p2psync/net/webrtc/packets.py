"""The two chunks of SCTP that carry a stream (RFC 9260 3.3.1, 3.3.4), one in a packet.

Everything else that one SCTP says to another is rare and is left to aiortc, once it is `sound`.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from google_crc32c import value as crc32c

MODULO: Final = 2**32  # of the numbers that count packets, TSNs
BINARY: Final = 53  # WebRTC's number for a binary message
FIRST, LAST, UNORDERED = 0x02, 0x01, 0x04

_DATA: Final = 0
_SACK: Final = 3
_BLANK: Final = b"\0\0\0\0"
_CHECKSUM: Final = Struct("<L")
_DATA_HEAD: Final = Struct("!HHL4sBBHLHHL")
_SACK_HEAD: Final = Struct("!HHL4sBBHLLHH")
_GAP: Final = Struct("!HH")
_CHUNK_HEAD: Final = Struct("!BBH")
_PARAMETER_HEAD: Final = Struct("!HH")
_PARAMETERS_AT: Final = {1: 20, 2: 20, 4: 4, 5: 4, 6: 4, 9: 4, 130: 4}  # by kind of chunk
_GAPS: Final = 256  # in one SACK; those further on are told when these are filled


class Data(NamedTuple):
    """A piece of a message."""

    tsn: int
    flags: int
    stream: int
    protocol: int
    payload: bytes


class Sack(NamedTuple):
    """What has arrived: all up to tsn, and the ranges of gaps, counted from it."""

    tsn: int
    gaps: list[tuple[int, int]]


class Packets:
    """Makes and reads the packets of one association."""

    def __init__(self, port: int, local_tag: int, remote_tag: int) -> None:
        """port: of both ends. The tags are those both chose when the association was made."""
        self._port = port
        self._local_tag = local_tag
        self._remote_tag = remote_tag

    def data(self, tsn: int, flags: int, number: int, payload: bytes | memoryview) -> bytearray:
        """Return a packet with a piece of the message of this number."""
        size = len(payload)
        head = _DATA_HEAD.pack(
            self._port,
            self._port,
            self._remote_tag,
            _BLANK,
            _DATA,
            flags,
            size + 16,
            tsn % MODULO,
            0,
            number % 2**16,
            BINARY,
        )
        return _sealed(bytearray(b"".join((head, payload, _BLANK[: -size % 4]))))

    def sack(self, tsn: int, room: int, gaps: Iterable[tuple[int, int]]) -> bytearray:
        """Return a packet that acknowledges; room: what SCTP calls the receiver window."""
        told = list(gaps)[:_GAPS]
        head = _SACK_HEAD.pack(
            self._port,
            self._port,
            self._remote_tag,
            _BLANK,
            _SACK,
            0,
            16 + 4 * len(told),
            tsn % MODULO,
            room,
            len(told),
            0,
        )
        return _sealed(bytearray(head + b"".join(_GAP.pack(*gap) for gap in told)))

    def read(self, packet: bytes) -> Data | Sack | None:
        """Return what a packet says; None: something else, or nothing sound."""
        if len(packet) < _DATA_HEAD.size or packet[12] not in (_DATA, _SACK):
            return None
        _, _, tag, checksum, kind, flags, length, tsn, first, _, third = _DATA_HEAD.unpack_from(
            packet
        )
        if tag != self._local_tag or not len(packet) - 4 < 12 + length <= len(packet):
            return None
        if crc32c(packet[:8] + _BLANK + packet[12:]) != _CHECKSUM.unpack(checksum)[0]:
            return None
        if kind == _DATA:
            return Data(tsn, flags, first, third, packet[28 : 12 + length])
        gaps, duplicates = third >> 16, third & 0xFFFF
        if length != 16 + 4 * (gaps + duplicates):
            return None
        return Sack(tsn, list(_GAP.iter_unpack(packet[28 : 28 + 4 * gaps])))


def sound(packet: bytes) -> bool:
    """Say whether no parameter is of length 0: aiortc would look for its end for ever."""
    at = 12
    while at + 4 <= len(packet):
        kind, _, length = _CHUNK_HEAD.unpack_from(packet, at)
        end = at + max(length, 4)
        parameter = at + _PARAMETERS_AT.get(kind, length)
        while parameter + 4 <= min(end, len(packet)):
            size = _PARAMETER_HEAD.unpack_from(packet, parameter)[1]
            if not size:
                return False
            parameter += size + -size % 4
        at = end + -length % 4
    return True


def unwrapped(tsn: int, near: int) -> int:
    """Return the number nearest to near that is written as tsn in a packet."""
    return near + (tsn - near + MODULO // 2) % MODULO - MODULO // 2


def _sealed(packet: bytearray) -> bytearray:
    """Write the checksum of a packet that is blank there."""
    _CHECKSUM.pack_into(packet, 8, crc32c(bytes(packet)))
    return packet
