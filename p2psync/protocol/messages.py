"""Every message of a session, as typed structs; `MESSAGE_TYPES` is the list.

On the wire a message is a msgpack array: its number, then its fields in order. New fields
go to the end and have a default: an older peer ignores them, a newer one fills them in.
Unknown numbers are refused. `DATA_MESSAGES` may be as large as a data frame, all others as
a control frame.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from p2psync.protocol import limits

# What a field may hold is part of its type: `codec.decode` checks it before memory is taken.
_U64 = Annotated[int, Meta(ge=0)]  # msgpack has no larger integer than 2**64 - 1
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Seq = Annotated[int, Meta(ge=1, le=limits.SEQ_MAX)]
_Vector = dict[_U64, _Seq]  # its size is bounded by the frame
_Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Name = Annotated[str, Meta(max_length=limits.NAME_TEXT)]
_Reason = Annotated[str, Meta(max_length=limits.REASON_TEXT)]
_Contents = Annotated[list[_Bytes32], Meta(max_length=limits.PACK_ITEMS)]
_Size = Annotated[int, Meta(ge=0, le=limits.DATA_FRAME)]
_Chunks = Annotated[int, Meta(ge=0, le=limits.CHUNKS_PER_MANIFEST)]
_Offset = Annotated[int, Meta(ge=0, lt=limits.FILE_BYTES)]


class Message(msgspec.Struct, frozen=True, array_like=True):
    """The base of all messages."""


# ----------------------------------------------------------------- the session itself


class Hello(Message, frozen=True, array_like=True, tag=1):
    """First in each direction: who is speaking, beyond the key that is already proven.

    instance: 16 random bytes made at process start; the same key with another instance, while
    the old session is still alive, is a clone.
    """

    name: _Name
    instance: _Bytes16
    software: Annotated[str, Meta(max_length=limits.SOFTWARE_TEXT)]


class Ping(Message, frozen=True, array_like=True, tag=2):
    """Answer with `Pong` of the same number."""

    number: _Count


class Pong(Message, frozen=True, array_like=True, tag=3):
    """The answer to a `Ping`."""

    number: _Count


class Goodbye(Message, frozen=True, array_like=True, tag=4):
    """The session ends on purpose; nothing follows. reason is for the log."""

    reason: _Reason


# ----------------------------------------------------------------- members


class MemberRow(msgspec.Struct, frozen=True, array_like=True):
    """One signed statement about a member of a folder (design 5.2).

    device, key: Ed25519 and X25519 public keys. inviter: the DeviceId that signs.
    signature: Ed25519 over label, FolderId and all other fields (see protocol.members).
    inviter_serial: the serial of the inviter's own row by which it was a member.
    kept: on a revoking row, which rows signed by the revoked device still count
    (`members.mark_of` each).
    """

    device: _Bytes32
    key: _Bytes32
    name: _Name
    role: Annotated[str, Meta(max_length=16)]
    inviter: _Bytes32
    serial: _Seq
    revoked: bool
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]
    inviter_serial: _Seq = 1
    kept: Annotated[tuple[_Bytes16, ...], Meta(max_length=limits.MEMBER_ROWS)] = ()


class Members(Message, frozen=True, array_like=True, tag=10):
    """All rows the sender knows of a folder; before anything else about that folder."""

    folder: _Bytes16
    rows: Annotated[list[MemberRow], Meta(max_length=limits.MEMBER_ROWS)]


# ----------------------------------------------------------------- exchange of entries


class Attach(Message, frozen=True, array_like=True, tag=20):
    """How far the sender has taken the receiver's arrivals, and what it knows, by digest.

    start, arrival: the receiver's start id and arrival durably taken (0, 0: nothing yet).
    known, collected: `vector.digest` of the sender's knowledge and collected vector.
    """

    folder: _Bytes16
    start: _U64
    arrival: _Count
    known: _Bytes16
    collected: _Bytes16


class Recognised(Message, frozen=True, array_like=True, tag=21):
    """The answer to `Attach`: whether its digests are of vectors the answering side has.

    If not, the vectors follow whole as `Knowledge`. Only after that (or at once, if they are)
    does the side that attached send entries, so that every `Mark` has a base to add to.
    """

    folder: _Bytes16
    recognised: bool


class Knowledge(Message, frozen=True, array_like=True, tag=22):
    """The sender's whole knowledge and collected vector, when not recognised."""

    folder: _Bytes16
    known: _Vector
    collected: _Vector


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One entry under way: the sender's arrival, the path, the encoded `core.entry.Entry`."""

    arrival: _Count
    path: Annotated[bytes, Meta(max_length=limits.PATH_BYTES)]
    entry: msgspec.Raw


class Entries(Message, frozen=True, array_like=True, tag=23):
    """A page of a batch, ascending by arrival. full: the batch lists everything, unfiltered."""

    folder: _Bytes16
    start: _U64
    full: bool
    items: Annotated[list[Item], Meta(max_length=limits.PAGE_ENTRIES)]


class Mark(Message, frozen=True, array_like=True, tag=24):
    """The end of a batch: only this moves knowledge (design 4.4).

    end: the arrival up to which the batch was complete. known, collected, acks: what has been
    added since they were last told in this session (at first: since the sender's `Attach`);
    acks maps other members (peer keys) to their knowledge, None meaning "all that the sender
    knows".
    need_files, need_bytes: what the sender still lacks itself.
    stuck: it lacks something and gets no further before a person does something there.
    """

    folder: _Bytes16
    start: _U64
    end: _Count
    full: bool
    known: _Vector
    collected: _Vector
    acks: Annotated[dict[_Bytes32, _Vector | None], Meta(max_length=limits.MEMBERS)]
    need_files: _Count
    need_bytes: _Count
    stuck: bool = False


class Digest(Message, frozen=True, array_like=True, tag=26):
    """A quiet folder's incremental digest of all entries (design 4.9)."""

    folder: _Bytes16
    known: _Bytes16
    digest: Annotated[bytes, Meta(min_length=16, max_length=32)]


class Detach(Message, frozen=True, array_like=True, tag=27):
    """The sender no longer syncs this folder over this session."""

    folder: _Bytes16


# ----------------------------------------------------------------- contents


class AskFiles(Message, frozen=True, array_like=True, tag=30):
    """Ask for whole small files by content."""

    request: _Count
    folder: _Bytes16
    contents: _Contents


class Files(Message, frozen=True, array_like=True, tag=31):
    """Whole small files, content and bytes; several of these may answer one request.

    gone: contents the sender cannot give now. last: the request is answered.
    """

    request: _Count
    files: Annotated[list[tuple[_Bytes32, bytes]], Meta(max_length=limits.PACK_ITEMS)]
    gone: _Contents
    last: bool


class AskManifest(Message, frozen=True, array_like=True, tag=32):
    """Ask for the chunks of one large file by its content.

    base: another content whose manifest the asker has; the answer may build on it.
    """

    request: _Count
    folder: _Bytes16
    content: _Bytes32
    base: _Bytes32 | None = None


class Manifest(Message, frozen=True, array_like=True, tag=33):
    """A large file's chunks in order: BLAKE3-256 hashes, concatenated, and sizes.

    Empty for a content the sender cannot give now.
    spans: if there are any, the chunks are only those that the base asked with lacks; each
    span (n, first, m) says: the next n of them, then m chunks of the base from its first on.
    """

    request: _Count
    hashes: Annotated[bytes, Meta(max_length=32 * limits.CHUNKS_PER_MANIFEST)]
    sizes: Annotated[list[_Size], Meta(max_length=limits.CHUNKS_PER_MANIFEST)]
    spans: Annotated[
        list[tuple[_Chunks, _Chunks, _Chunks]], Meta(max_length=limits.CHUNKS_PER_MANIFEST)
    ] = []


class AskChunks(Message, frozen=True, array_like=True, tag=34):
    """Ask for chunks of one large file: offset, size and BLAKE3-256 hash of each.

    By place and hash, not by number: the two sides need not have cut the file alike.
    """

    request: _Count
    folder: _Bytes16
    content: _Bytes32
    chunks: Annotated[list[tuple[_Offset, _Size, _Bytes32]], Meta(max_length=limits.PACK_ITEMS)]


class Chunks(Message, frozen=True, array_like=True, tag=35):
    """Chunks by offset; several of these may answer one request. gone, last: as `Files`."""

    request: _Count
    chunks: Annotated[list[tuple[_Offset, bytes]], Meta(max_length=limits.PACK_ITEMS)]
    gone: Annotated[list[_Offset], Meta(max_length=limits.PACK_ITEMS)]
    last: bool


MESSAGE_TYPES: Final = (
    Hello,
    Ping,
    Pong,
    Goodbye,
    Members,
    Attach,
    Recognised,
    Knowledge,
    Entries,
    Mark,
    Digest,
    Detach,
    AskFiles,
    Files,
    AskManifest,
    Manifest,
    AskChunks,
    Chunks,
)

DATA_MESSAGES: Final = (Files, Chunks)
