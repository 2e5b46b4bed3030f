"""The stored form of places, rows and vectors: small bodies, and numbers SQLite can hold.

An entry's body is `core.reconcile.encode`'s: what is stored is what travels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from p2psync.core.entry import Kind
from p2psync.core.ids import Dot
from p2psync.core.index import Place, Row, Signature
from p2psync.core.vector import Vector
from p2psync.protocol.messages import MemberRow

_Packed = tuple[Kind, bytes, int, bytes, bool, int, frozenset[Dot], bytes | None]
_PackedRow = tuple[_Packed, Signature | None]


class Context(msgspec.Struct, frozen=True, array_like=True):
    """An entry of which only the context is read."""

    ctx: Vector


class Living(msgspec.Struct, frozen=True, array_like=True):
    """An entry of which only the names of the live values are read."""

    ctx: msgspec.Raw
    live: dict[Dot, msgspec.Raw]


class Signed(msgspec.Struct, frozen=True, array_like=True):
    """A row of which nothing is read: what it shows, and the signature."""

    place: msgspec.Raw
    signature: msgspec.Raw


encode: Final = msgspec.msgpack.Encoder().encode
decode_context: Final = msgspec.msgpack.Decoder(Context).decode
decode_living: Final = msgspec.msgpack.Decoder(Living).decode
decode_dots: Final = msgspec.msgpack.Decoder(list[Dot]).decode
decode_sizes: Final = msgspec.msgpack.Decoder(list[int]).decode
decode_member: Final = msgspec.msgpack.Decoder(MemberRow).decode
decode_texts: Final = msgspec.msgpack.Decoder(tuple[str, ...]).decode
_decode_place: Final[Callable[[bytes], _Packed]] = msgspec.msgpack.Decoder(_Packed).decode
_decode_row: Final[Callable[[bytes], _PackedRow]] = msgspec.msgpack.Decoder(_PackedRow).decode
_decode_signature: Final = msgspec.msgpack.Decoder(Signed).decode


def encode_place(path: bytes, place: Place) -> bytes:
    """Encode what is wanted at the path; its home is left out when it is the path itself."""
    return encode(_pack(path, place))


def decode_place(path: bytes, body: bytes) -> Place:
    """Decode what `encode_place` made of the same path."""
    return _unpack(path, _decode_place(body))


def encode_row(path: bytes, row: Row) -> bytes:
    """Encode what stands at the path."""
    return encode((_pack(path, row.place), row.signature))


def decode_row(path: bytes, body: bytes) -> Row:
    """Decode what `encode_row` made of the same path."""
    packed, signature = _decode_row(body)
    return Row(_unpack(path, packed), signature)


def shown(row: bytes, place: bytes) -> bytes:
    """Return the body of a row that shows a place, by their bodies; the signature stays.

    Both were encoded for a path that is the home of what they show.
    """
    return b"\x92" + place + bytes(_decode_signature(row).signature)


def _pack(path: bytes, place: Place) -> tuple[object, ...]:
    return (*place[:7], None if place.home == path else place.home)


def _unpack(path: bytes, packed: _Packed) -> Place:
    return Place(*packed[:7], path if packed[7] is None else packed[7])


def signed(number: int) -> int:
    """Turn an unsigned 64-bit number into the signed one SQLite stores."""
    return number - (1 << 64) if number >> 63 else number


def unsigned(number: int) -> int:
    """Undo `signed`."""
    return number + (1 << 64) if number < 0 else number


def prefix(content: bytes) -> int:
    """Return a hash's first 8 bytes as a number: a small key that finds it."""
    return int.from_bytes(content[:8], "big", signed=True)


def vector_of(pairs: Iterable[tuple[int, int]]) -> Vector:
    """Return the vector of stored (author, seq) pairs."""
    return {unsigned(author): seq for author, seq in pairs}


def below(path: bytes) -> tuple[bytes, bytes]:
    """Return the bounds (low, high) of what is strictly below: low < path < high.

    b"" is the root; no path begins with 0xFF bytes enough to reach its upper bound, because
    a name has at most 255 bytes.
    """
    if not path:
        return b"", b"\xff" * 256
    return path + b"/", path + b"0"  # "0" is the byte after "/"
