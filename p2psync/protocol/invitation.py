"""What the messages of pairing hold: typed, bounded, and signed by who they are about."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from p2psync.core.ids import DeviceId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits, words
from p2psync.protocol.codec import encoder
from p2psync.protocol.messages import MemberRow
from p2psync.protocol.pake import SPAKE_BYTES
from p2psync.protocol.signing import SIGNATURE_BYTES, Signer, verify

START, ANSWER, JOIN, WELCOME, REFUSE, DECLINE = (bytes([kind]) for kind in range(1, 7))
"""The first byte of each message."""

_Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Name = Annotated[str, Meta(max_length=limits.NAME_TEXT)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Joining(msgspec.Struct, frozen=True, array_like=True):
    """Who accepts. device, key: Ed25519 and X25519. instance: as in `messages.Hello`."""

    device: _Bytes32
    key: _Bytes32
    name: _Name
    instance: _Bytes16


class Welcome(msgspec.Struct, frozen=True, array_like=True):
    """Who shares, and what.

    files, bytes: what accepting would bring; complete: the sharing side has finished counting.
    founder, members: as `protocol.members` reads them; the row of the accepting device is among
    them (`members.chain` finds the rows needed).
    """

    device: _Bytes32
    key: _Bytes32
    name: _Name
    instance: _Bytes16
    folder: _Bytes16
    folder_name: _Name
    role: Annotated[str, Meta(max_length=16)]
    files: _Count
    bytes: _Count
    complete: bool
    founder: _Bytes32
    members: Annotated[list[MemberRow], Meta(max_length=limits.MEMBER_ROWS)]


class Refusal(IntEnum):
    """Why the sharing side ends a conversation."""

    WRONG = 1  # the code was not this one
    GONE = 2  # the code is used, burned or out of time
    VERSION = 3  # no version in common


def slot_of(start: bytes) -> str:
    """Return the slot word of a message 1, so that an owner knows which code it is for.

    Raises:
        RemoteProtocolError: this is not a message 1.
    """
    return words.word_of(split_start(start)[1])


def pack_start(versions: tuple[int, ...], slot: str, point: bytes) -> bytes:
    """Return message 1."""
    if not 0 < len(versions) <= limits.VERSIONS_OFFERED:
        raise LocalProtocolError(f"{len(versions)} versions to offer")
    offered = b"".join(version.to_bytes(2, "big") for version in versions)
    number = words.number_of(slot).to_bytes(2, "big")
    return START + bytes([len(versions)]) + offered + number + point


def split_start(data: bytes) -> tuple[tuple[int, ...], int]:
    """Return the versions offered and the number of the slot word."""
    count = data[1] if len(data) > 1 else 0
    ends = 2 + 2 * count
    if (
        data[:1] != START
        or not 0 < count <= limits.VERSIONS_OFFERED
        or len(data) != ends + 2 + SPAKE_BYTES
    ):
        raise RemoteProtocolError("not a message 1 of pairing")
    versions = tuple(int.from_bytes(data[i : i + 2], "big") for i in range(2, ends, 2))
    slot = int.from_bytes(data[ends : ends + 2], "big")
    if slot >= words.WORDS_LISTED:
        raise RemoteProtocolError(f"slot {slot} is no word")
    return versions, slot


PayloadT = TypeVar("PayloadT", Joining, Welcome)
_joining_decoder: Final = msgspec.msgpack.Decoder(Joining)
_welcome_decoder: Final = msgspec.msgpack.Decoder(Welcome)


def pack_signed(
    identity: Signer, use: bytes, payload: Joining | Welcome, *about: bytes
) -> bytes:
    """Return the payload's bytes after a signature over what it is about and them."""
    packed = encoder.encode(payload)
    return identity.sign(use, *about, packed) + packed


def unpack_joining(plain: bytes, use: bytes, *about: bytes) -> Joining:
    """Return the payload; raise RemoteProtocolError unless the device in it signed it."""
    return _unpack(_joining_decoder, plain, use, *about)


def unpack_welcome(plain: bytes, use: bytes, *about: bytes) -> Welcome:
    """Return the payload; raise RemoteProtocolError unless the device in it signed it."""
    return _unpack(_welcome_decoder, plain, use, *about)


def _unpack(
    decoder: msgspec.msgpack.Decoder[PayloadT], plain: bytes, use: bytes, *about: bytes
) -> PayloadT:
    signature, packed = plain[:SIGNATURE_BYTES], plain[SIGNATURE_BYTES:]
    try:
        payload = decoder.decode(packed)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"not what pairing sends: {error}") from error
    if not verify(DeviceId(payload.device), use, signature, *about, packed):
        raise RemoteProtocolError("the other side did not prove who it is")
    return payload
