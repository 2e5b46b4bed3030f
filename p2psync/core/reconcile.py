"""Reconciling is a join: commutative, associative, idempotent, in any order of delivery.

No winner is stored and no dot is made, and equal contents are no special case (design: data
model, 4.2). Storing a winner under joined versions, the obvious way, is not associative: it
diverges silently. Choosing what to show is the view's question (`core.view`).

`valid` and `decode` are the border: an entry that came through both can do no harm here.
"""

from __future__ import annotations

from typing import Final

import msgspec
from blake3 import blake3

from p2psync.core.entry import Entry, Kind, Value
from p2psync.core.ids import CONTENT_BYTES, Dot
from p2psync.core.vector import Vector, covers, join

AUTHOR_MAX: Final = 2**64 - 1
SEQ_MAX: Final = 2**63 - 1
SEQ_AHEAD: Final = 2**32
HEIGHT_MAX: Final = 2**53
FILE_BYTES: Final = 2**62
MTIME_NS: Final = 2**62
LINK_BYTES: Final = 4_095
LIVE_VALUES: Final = 1_000
CONTEXT_AUTHORS: Final = 32_768

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Entry)


def reconcile(mine: Entry, incoming: Entry, known: Vector) -> Entry:
    """Return what is known of a path after taking in what another replica knows of it.

    A dot stays if the other holds it too or has never seen it; one of the other's is taken
    unless it is known to be dead here: covered by my context or by `known`, my knowledge,
    and not among my live values. Returns `mine` itself when it has nothing to learn.
    """
    my_ctx, its_ctx = mine.ctx, incoming.ctx
    my_live, its_live = mine.live, incoming.live
    if not my_ctx and its_ctx and not any(covers(known, dot) for dot in its_live):
        return incoming  # nearly all of a first sync
    live: dict[Dot, Value] = {}
    for dot, value in my_live.items():
        other = its_live.get(dot)
        if other is not None:
            live[dot] = value if other == value else _merge(value, other)
        elif its_ctx.get(dot[0], 0) < dot[1]:
            live[dot] = value
    for dot, value in its_live.items():
        author, seq = dot
        if dot not in my_live and my_ctx.get(author, 0) < seq and known.get(author, 0) < seq:
            live[dot] = value
    ctx = join(my_ctx, its_ctx)
    if ctx is my_ctx and live == my_live:
        return mine
    return Entry(ctx, live)


def _merge(a: Value, b: Value) -> Value:
    """Join two states of one value: they differ in metadata, the later stamp wins.

    The rest only differs if somebody forged a dot. Then any choice will do that every replica
    makes alike, or the forgery would make honest replicas diverge.
    """
    body = max(a, b, key=_body)
    meta = max(a, b, key=_meta)
    return Value(
        body.kind,
        body.content,
        body.size,
        body.link,
        body.height,
        meta.executable,
        meta.mtime_ns,
        meta.stamp_height,
        meta.stamp_dot,
    )


def _body(value: Value) -> tuple[int, bytes, int, bytes, int]:
    return (value.kind, value.content, value.size, value.link, value.height)


def _meta(value: Value) -> tuple[int, Dot, bool, int]:
    return (value.stamp_height, value.stamp_dot, value.executable, value.mtime_ns)


def encode(entry: Entry) -> bytes:
    """Return the msgpack form; equal entries have equal forms, however they came about."""
    ctx, live = entry.ctx, entry.live
    if len(ctx) > 1 or len(live) > 1:
        entry = Entry(dict(sorted(ctx.items())), dict(sorted(live.items())))
    return _encoder.encode(entry)


def decode(data: bytes) -> Entry:
    """Read the msgpack form; what came from a peer has yet to pass `valid`.

    Raises:
        ValueError: the bytes are not the form of an entry.
    """
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not an entry: {error}") from error


def valid(entry: Entry) -> None:
    """Accept an entry that an honest replica could have made.

    Raises:
        ValueError: with the first rule it breaks.
    """
    if len(entry.ctx) > CONTEXT_AUTHORS or len(entry.live) > LIVE_VALUES:
        raise ValueError("an entry with too many authors or values")
    if not entry.ctx:
        raise ValueError("an entry without a context")
    for author, seq in entry.ctx.items():
        if not (1 <= author <= AUTHOR_MAX and 1 <= seq <= SEQ_MAX):
            raise ValueError("a context out of bounds")
    for dot, value in entry.live.items():
        _check_dot(dot, entry.ctx)
        if value.stamp_dot != dot:
            _check_dot(value.stamp_dot, entry.ctx)
        _check_numbers(value)
        _CHECKS[value.kind](value)


def _check_dot(dot: Dot, ctx: Vector) -> None:
    if not 1 <= dot[1] <= ctx.get(dot[0], 0):
        raise ValueError("a dot that its context does not cover")


def _check_numbers(value: Value) -> None:
    if not (1 <= value.height <= HEIGHT_MAX and 1 <= value.stamp_height <= HEIGHT_MAX):
        raise ValueError("a height out of bounds")
    if not (0 <= value.size <= FILE_BYTES and -MTIME_NS <= value.mtime_ns <= MTIME_NS):
        raise ValueError("a size or time out of bounds")


def _check_file(value: Value) -> None:
    if len(value.content) != CONTENT_BYTES or value.link:
        raise ValueError("a file with a malformed content")


def _check_plain(value: Value) -> None:
    if value.size or value.executable or value.mtime_ns:
        raise ValueError("a directory or link with a file's metadata")


def _check_directory(value: Value) -> None:
    _check_plain(value)
    if value.content or value.link:
        raise ValueError("a directory with a content")


def _check_link(value: Value) -> None:
    _check_plain(value)
    if not 1 <= len(value.link) <= LINK_BYTES or b"\0" in value.link:
        raise ValueError("a link with a malformed target")
    if value.content != blake3(value.link).digest():
        raise ValueError("a link whose content is not the hash of its target")


_CHECKS: Final = {
    Kind.FILE: _check_file,
    Kind.DIRECTORY: _check_directory,
    Kind.LINK: _check_link,
}
