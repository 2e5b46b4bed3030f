"""Tests of `core.reconcile`: the join, and the border for entries."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core import reconcile as module
from p2psync.core.entry import EMPTY, Entry, Value
from p2psync.core.reconcile import decode, encode, reconcile, valid
from tests.support.entries import directory, entries, entry, file, link

MINE, ITS = file("mine", (1, 1)), file("its", (2, 1))
BOTH = Entry({1: 1, 2: 1}, {(1, 1): MINE, (2, 1): ITS})


@pytest.mark.parametrize(
    ("mine", "incoming", "known", "result"),
    [
        pytest.param(EMPTY, entry(ITS), {}, entry(ITS), id="a new path"),
        pytest.param(entry(MINE), entry(ITS), {}, BOTH, id="concurrent edits are both kept"),
        pytest.param(
            entry(MINE),
            entry(ITS, ctx={1: 1}),
            {},
            entry(ITS, ctx={1: 1}),
            id="an edit of mine",
        ),
        pytest.param(
            entry(MINE), entry(ctx={1: 1, 2: 1}), {}, entry(ctx={1: 1, 2: 1}), id="its delete"
        ),
        pytest.param(
            entry(MINE), entry(ctx={2: 1}), {}, entry(MINE, ctx={2: 1}), id="edit beats delete"
        ),
        pytest.param(
            entry(ctx={2: 1}), entry(ITS), {}, entry(ctx={2: 1}), id="what I deleted is dead"
        ),
        pytest.param(
            EMPTY, entry(ITS), {2: 5}, entry(ctx={2: 1}), id="what I knew and collected is dead"
        ),
        pytest.param(BOTH, entry(MINE), {}, BOTH, id="an old state brings nothing"),
    ],
)
def test_reconcile(mine: Entry, incoming: Entry, known: dict[int, int], result: Entry) -> None:
    """A live value goes when the other has seen it and no longer holds it, and only then."""
    assert reconcile(mine, incoming, known) == result


def test_nothing_learnt_is_the_same_object() -> None:
    """Who takes in an old state can tell at once that nothing is to be written."""
    assert reconcile(BOTH, entry(MINE), {}) is BOTH


def test_the_later_stamp_wins() -> None:
    """A metadata-only change keeps the dot, and the greatest stamp decides on both sides."""
    early, late = (
        file("x", (1, 1)),
        msgspec.structs.replace(
            file("x", (1, 1)), executable=True, stamp_height=2, stamp_dot=(3, 1)
        ),
    )
    mine = Entry({1: 1}, {(1, 1): early})
    its = Entry({1: 1, 3: 1}, {(1, 1): late})
    assert reconcile(mine, its, {}) == reconcile(its, mine, {}) == its


@given(entries(), entries())
def test_commutative(a: Entry, b: Entry) -> None:
    """Who tells whom makes no difference."""
    assert reconcile(a, b, {}) == reconcile(b, a, {})


@given(entries(), entries(), entries())
def test_associative(a: Entry, b: Entry, c: Entry) -> None:
    """In which order three meet makes no difference."""
    assert reconcile(reconcile(a, b, {}), c, {}) == reconcile(a, reconcile(b, c, {}), {})


@given(entries())
def test_idempotent(a: Entry) -> None:
    """Hearing the same twice brings nothing."""
    assert reconcile(a, a, {}) is a


@given(st.permutations([file("a", (1, 1)), file("b", (1, 1), 2), directory((1, 1))]))
def test_a_forged_dot_does_not_make_honest_replicas_diverge(values: list[Value]) -> None:
    """One dot for different contents is a lie; everybody believes the same part of it."""
    a, b, c = (Entry({1: 1}, {(1, 1): value}) for value in values)
    forwards = reconcile(reconcile(a, b, {}), c, {})
    assert forwards == reconcile(reconcile(c, b, {}), a, {})


@given(entries())
def test_codec(a: Entry) -> None:
    """What is written is read again, in one form however the entry came about."""
    assert decode(encode(a)) == a
    turned = Entry(dict(reversed(a.ctx.items())), dict(reversed(a.live.items())))
    assert encode(turned) == encode(a)
    valid(a)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x92\x80\x91",
        encode(BOTH)[:-1],
        encode(BOTH) + b"\0",
        b"\x92\x80\x80\x80",
    ],
)
def test_decode_refuses(data: bytes) -> None:
    """Bytes that are not an entry are refused with a sentence."""
    with pytest.raises(ValueError, match="not an entry"):
        decode(data)


def test_decode_refuses_an_unknown_kind() -> None:
    """A kind of a later version is refused here, and no half-understood value kept."""
    data = encode(entry(directory((1, 1)))).replace(b"\x99\x02", b"\x99\x09")
    with pytest.raises(ValueError, match="not an entry"):
        decode(data)


def _with(value: Value, **changes: object) -> Entry:
    return Entry({1: 1}, {(1, 1): msgspec.structs.replace(value, **changes)})


A_FILE, A_LINK, A_DIRECTORY = file("x", (1, 1)), link("x", (1, 1)), directory((1, 1))

HOSTILE = {
    "no context": Entry({}, {}),
    "author 0": Entry({0: 1}, {}),
    "seq 0": Entry({1: 0}, {}),
    "seq beyond 63 bits": Entry({1: 2**63}, {}),
    "author beyond 64 bits": Entry({2**64: 1}, {}),
    "dot beyond its context": Entry({1: 1}, {(1, 2): file("x", (1, 1))}),
    "dot of an unseen author": Entry({1: 1}, {(2, 1): file("x", (1, 1))}),
    "stamp beyond its context": _with(A_FILE, stamp_dot=(1, 2)),
    "stamp with seq 0": _with(A_FILE, stamp_dot=(9, 0)),
    "height 0": _with(A_FILE, height=0),
    "height beyond its limit": _with(A_FILE, height=2**53 + 1),
    "stamp height beyond its limit": _with(A_FILE, stamp_height=2**53 + 1),
    "negative size": _with(A_FILE, size=-1),
    "absurd size": _with(A_FILE, size=2**62 + 1),
    "absurd time": _with(A_FILE, mtime_ns=-(2**62) - 1),
    "short content": _with(A_FILE, content=b"x"),
    "file with a target": _with(A_FILE, link=b"x"),
    "directory with a content": _with(A_DIRECTORY, content=bytes(32)),
    "directory with a target": _with(A_DIRECTORY, link=b"x"),
    "executable directory": _with(A_DIRECTORY, executable=True),
    "link with a size": _with(A_LINK, size=1),
    "link with a time": _with(A_LINK, mtime_ns=1),
    "link to nothing": _with(A_LINK, link=b""),
    "link with a NUL": _with(A_LINK, link=b"a\0"),
    "link too long": _with(A_LINK, link=b"x" * 4_096),
    "link that is not its content": _with(A_LINK, link=b"y"),
    "too many values": Entry(
        {1: 2_000}, {(1, seq): file("x", (1, seq)) for seq in range(1, 1_002)}
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_t28_valid_refuses(what: str) -> None:
    """No honest replica makes such an entry; it is refused before anything acts on it."""
    with pytest.raises(ValueError, match=r"."):
        valid(HOSTILE[what])


def test_valid_accepts() -> None:
    """Every kind, a conflict and a tombstone are ordinary."""
    for honest in (entry(A_FILE), entry(A_LINK), entry(A_DIRECTORY), BOTH, entry(ctx={1: 1})):
        valid(honest)


def test_limits_agree_with_the_protocols() -> None:
    """The core cannot import the protocol's limits; they are the same numbers."""
    from p2psync.protocol import limits

    for name in (
        "SEQ_MAX",
        "SEQ_AHEAD",
        "HEIGHT_MAX",
        "FILE_BYTES",
        "MTIME_NS",
        "LINK_BYTES",
        "LIVE_VALUES",
    ):
        assert getattr(module, name) == getattr(limits, name)
