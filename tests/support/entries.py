"""Values and entries for tests of the data model, in a word each; and how to draw some."""

from __future__ import annotations

import msgspec
from blake3 import blake3
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Kind, Value
from p2psync.core.ids import Dot


def content(text: str) -> bytes:
    """The content of a file that holds the text."""
    return blake3(text.encode()).digest()


def file(text: str, dot: Dot, height: int = 1, mtime_ns: int = 0) -> Value:
    return Value(Kind.FILE, content(text), len(text), b"", height, False, mtime_ns, height, dot)


def directory(dot: Dot, height: int = 1) -> Value:
    return Value(Kind.DIRECTORY, b"", 0, b"", height, False, 0, height, dot)


def link(target: str, dot: Dot, height: int = 1) -> Value:
    raw = target.encode()
    return Value(Kind.LINK, blake3(raw).digest(), 0, raw, height, False, 0, height, dot)


def entry(*values: Value, ctx: dict[int, int] | None = None) -> Entry:
    """An entry of values whose dots are their stamps; ctx: dots seen besides."""
    seen = dict(ctx or {})
    for value in values:
        author, seq = value.stamp_dot
        seen[author] = max(seq, seen.get(author, 0))
    return Entry(seen, {value.stamp_dot: value for value in values})


# A dot names one change for ever: what it put there follows from it, only its stamp may differ.
_DOTS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def _value(dot: Dot, stamp: tuple[int, Dot]) -> Value:
    author, seq = dot
    kind = (Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.LINK)[(author * 3 + seq) % 4]
    made = {
        Kind.FILE: file("ab"[seq % 2], dot, 1 + author % 2),
        Kind.DIRECTORY: directory(dot, 1 + seq % 2),
        Kind.LINK: link("xy"[author % 2], dot),
    }[kind]
    height, stamp_dot = stamp
    mtime_ns = height * 100 + stamp_dot[0] * 10 + stamp_dot[1] if kind is Kind.FILE else 0
    return msgspec.structs.replace(
        made, mtime_ns=mtime_ns, stamp_height=height, stamp_dot=stamp_dot
    )


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Entries as honest replicas may come to have them."""
    dots = draw(st.sets(_DOTS, max_size=4))
    live = {dot: _value(dot, draw(st.tuples(st.integers(1, 3), _DOTS))) for dot in dots}
    ctx = draw(st.dictionaries(st.integers(1, 3), st.integers(1, 3), min_size=1))
    for dot, value in live.items():
        for author, seq in (dot, value.stamp_dot):
            ctx[author] = max(seq, ctx.get(author, 0))
    return Entry(ctx, live)
