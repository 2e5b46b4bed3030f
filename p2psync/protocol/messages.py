"""Every message of a session, as typed structs; `MESSAGE_TYPES` is the list.

On the wire a message is a msgpack array: its number, then its fields in order. New fields
go to the end and have a default: an older peer ignores them, a newer one fills them in.
Unknown numbers are refused. `DATA_MESSAGES` may be as large as a data frame, all others as
a control frame.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2psync.core.vector import Vector


class Message(msgspec.Struct, frozen=True, array_like=True):
    """The base of all messages."""


# ----------------------------------------------------------------- the session itself


class Hello(Message, frozen=True, array_like=True, tag=1):
    """First in each direction: who is speaking, beyond the key that is already proven.

    instance: 16 random bytes made at process start; the same key with another instance, while
    the old session is still alive, is a clone.
    """

    name: str
    instance: bytes
    software: str


class Ping(Message, frozen=True, array_like=True, tag=2):
    """Answer with `Pong` of the same number."""

    number: int


class Pong(Message, frozen=True, array_like=True, tag=3):
    """The answer to a `Ping`."""

    number: int


class Goodbye(Message, frozen=True, array_like=True, tag=4):
    """The session ends on purpose; nothing follows. reason is for the log."""

    reason: str


# ----------------------------------------------------------------- members


class MemberRow(msgspec.Struct, frozen=True, array_like=True):
    """One signed statement about a member of a folder (design 5.2).

    device, key: Ed25519 and X25519 public keys. inviter: the DeviceId that signs.
    signature: Ed25519 over label, FolderId and all other fields (see protocol.members).
    """

    device: bytes
    key: bytes
    name: str
    role: str
    inviter: bytes
    serial: int
    revoked: bool
    signature: bytes


class Members(Message, frozen=True, array_like=True, tag=10):
    """All rows the sender knows of a folder; before anything else about that folder."""

    folder: bytes
    rows: list[MemberRow]


# ----------------------------------------------------------------- exchange of entries


class Attach(Message, frozen=True, array_like=True, tag=20):
    """How far the sender has taken the receiver's arrivals, and what it knows, by digest.

    start, arrival: the receiver's start id and arrival durably taken (0, 0: nothing yet).
    known, collected: `vector.digest` of the sender's knowledge and collected vector.
    """

    folder: bytes
    start: int
    arrival: int
    known: bytes
    collected: bytes


class Recognised(Message, frozen=True, array_like=True, tag=21):
    """The answer to `Attach`: whether its digests are of vectors the answering side has.

    If not, the vectors follow whole as `Knowledge`. Only after that (or at once, if they are)
    does the side that attached send entries, so that every `Mark` has a base to add to.
    """

    folder: bytes
    recognised: bool


class Knowledge(Message, frozen=True, array_like=True, tag=22):
    """The sender's whole knowledge and collected vector, when not recognised."""

    folder: bytes
    known: Vector
    collected: Vector


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One entry under way: the sender's arrival, the path, the encoded `core.entry.Entry`."""

    arrival: int
    path: bytes
    entry: msgspec.Raw


class Entries(Message, frozen=True, array_like=True, tag=23):
    """A page of a batch, ascending by arrival. full: the batch lists everything, unfiltered."""

    folder: bytes
    start: int
    full: bool
    items: list[Item]


class Mark(Message, frozen=True, array_like=True, tag=24):
    """The end of a batch: only this moves knowledge (design 4.4).

    end: the arrival up to which the batch was complete. known, collected, acks: what has been added since
    they were last told in this session (at first: since the sender's `Attach`); acks maps
    other members (peer keys) to their knowledge, None meaning "all that the sender knows".
    need_files, need_bytes: what the sender still lacks itself.
    """

    folder: bytes
    start: int
    end: int
    full: bool
    known: Vector
    collected: Vector
    acks: dict[bytes, Vector | None]
    need_files: int
    need_bytes: int


class Need(Message, frozen=True, array_like=True, tag=25):
    """What the sender still lacks, when that changed and there is nothing else to say."""

    folder: bytes
    files: int
    bytes: int


class Digest(Message, frozen=True, array_like=True, tag=26):
    """A quiet folder's incremental digest of all entries (design 4.9)."""

    folder: bytes
    known: bytes
    digest: bytes


class Detach(Message, frozen=True, array_like=True, tag=27):
    """The sender no longer syncs this folder over this session."""

    folder: bytes


# ----------------------------------------------------------------- contents


class AskFiles(Message, frozen=True, array_like=True, tag=30):
    """Ask for whole small files by content."""

    request: int
    folder: bytes
    contents: list[bytes]


class Files(Message, frozen=True, array_like=True, tag=31):
    """Whole small files, content and bytes; several of these may answer one request.

    gone: contents the sender cannot give now. last: the request is answered.
    """

    request: int
    files: list[tuple[bytes, bytes]]
    gone: list[bytes]
    last: bool


class AskManifest(Message, frozen=True, array_like=True, tag=32):
    """Ask for the chunks of one large file by its content."""

    request: int
    folder: bytes
    content: bytes


class Manifest(Message, frozen=True, array_like=True, tag=33):
    """A large file's chunks in order: BLAKE3-256 hashes, concatenated, and sizes.

    Empty for a content the sender cannot give now.
    """

    request: int
    hashes: bytes
    sizes: list[int]


class AskChunks(Message, frozen=True, array_like=True, tag=34):
    """Ask for chunks of one large file by their positions in its manifest."""

    request: int
    folder: bytes
    content: bytes
    positions: list[int]


class Chunks(Message, frozen=True, array_like=True, tag=35):
    """Chunks by position; several of these may answer one request. gone, last: as `Files`."""

    request: int
    chunks: list[tuple[int, bytes]]
    gone: list[int]
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
    Need,
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
