"""Tests of `core.view`: the tree the disk should show."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.entry import Entry, Kind
from p2psync.core.index import Place
from p2psync.core.reconcile import reconcile
from p2psync.core.view import copy_name, implicit, place_of, same_looks, view
from tests.support.entries import content, directory, entries, entry, file, link

A, B, C = file("a", (1, 1)), file("b", (2, 1)), file("c", (3, 1))


def _shape(tree: dict[bytes, Place]) -> dict[bytes, tuple[Kind, bytes]]:
    return {path: place[:2] for path, place in tree.items()}


def test_one_value_stands_at_its_path() -> None:
    """The normal case."""
    assert view({b"p": entry(A)}) == {b"p": place_of(A, frozenset([(1, 1)]), b"p")}


def test_a_tombstone_shows_nothing() -> None:
    """Nothing stands where nothing lives."""
    assert view({b"p": entry(ctx={1: 1}), b"q": Entry({}, {})}) == {}


def test_k_contents_give_k_files() -> None:
    """The winner has the plain name, every other one a name of its own beside it."""
    tree = view({b"p": Entry({1: 1, 2: 1, 3: 1}, {(1, 1): A, (2, 1): B, (3, 1): C})})
    assert {place.content for place in tree.values()} == {A.content, B.content, C.content}
    assert tree[b"p"].content == max(A.content, B.content, C.content)
    assert all(place.home == b"p" for place in tree.values())


def test_equal_contents_are_one_file() -> None:
    """Two devices that make the same file have made one file."""
    same = file("a", (2, 1), mtime_ns=5)
    tree = view({b"p": Entry({1: 1, 2: 1}, {(1, 1): A, (2, 1): same})})
    assert tree == {b"p": place_of(same, frozenset([(1, 1), (2, 1)]), b"p")}


def test_height_decides_before_content() -> None:
    """An edit of the winner stays the winner, whatever its bytes."""
    for low, high in (("a", "b"), ("b", "a")):
        tree = view({b"p": entry(file(low, (1, 1), 1), file(high, (2, 1), 2))})
        assert tree[b"p"].content == content(high)


def test_d03_kinds_with_equal_content_are_different_objects() -> None:
    """A link and the file that holds its target's text are two."""
    tree = view({b"p": entry(file("x", (1, 1)), link("x", (2, 1)))})
    assert sorted(place.kind for place in tree.values()) == [Kind.FILE, Kind.LINK]


def test_a_directory_outranks_files() -> None:
    """Directories are never conflict copies, however high the file."""
    tree = view({b"p": entry(directory((1, 1)), file("a", (2, 1), 9))})
    assert tree[b"p"].kind is Kind.DIRECTORY
    assert tree[copy_name(b"p", (2, 1), 0)].content == content("a")


def test_b06_what_lives_below_keeps_its_directories() -> None:
    """Directories that nobody made, or somebody deleted, stand where they are needed."""
    tree = view({b"a": entry(ctx={1: 1}), b"a/b/c": entry(A)})
    assert tree[b"a"] == implicit(b"a")
    assert tree[b"a/b"] == implicit(b"a/b")


def test_d02_a_file_steps_aside_for_what_lives_below() -> None:
    """All its contents become conflict copies beside an implicit directory."""
    tree = view({b"p": entry(A, B), b"p/x": entry(C)})
    assert tree[b"p"] == implicit(b"p")
    assert {copy_name(b"p", (1, 1), 0), copy_name(b"p", (2, 1), 0)} < tree.keys()


def test_an_ordinary_file_keeps_the_name_of_a_copy() -> None:
    """The copy steps aside to the next free suffix, and the one after that."""
    loser = (1, 1) if A.content < B.content else (2, 1)
    first, second, third = (copy_name(b"p", loser, i) for i in range(3))
    conflict = entry(A, B)
    assert third in view({b"p": conflict, first: entry(C), second: entry(C)})
    assert third not in view({b"p": conflict, first: entry(C)})
    below = view({b"p": conflict, first + b"/x": entry(C)})
    assert second in below
    assert below[first] == implicit(first)


@given(
    st.dictionaries(st.sampled_from([b"p", b"p/x", b"p/x/y", b"q"]), entries()), st.randoms()
)
def test_order_of_the_entries_is_irrelevant(found: dict[bytes, Entry], rng: object) -> None:
    """The view is a function of the set of entries; nothing hides anything."""
    items = list(found.items())
    rng.shuffle(items)  # type: ignore[attr-defined]  # a Random
    tree = view(dict(items))
    assert tree == view(found)
    for path in tree:
        above = path.rpartition(b"/")[0]
        assert not above or tree[above].kind is Kind.DIRECTORY
    alive = {(v.kind, v.content) for e in found.values() for v in e.live.values()}
    assert alive <= set(_shape(tree).values())


@given(entries(), entries(), entries())
def test_conflict_exactness(a: Entry, b: Entry, c: Entry) -> None:
    """In whatever order entries meet, the same files stand at the same names."""
    one = reconcile(reconcile(a, b, {}), c, {})
    other = reconcile(c, reconcile(b, a, {}), {})
    assert view({b"p": one}) == view({b"p": other})


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (b"report.txt", rb"report\.conflict-[A-Z2-7]{5}\.txt"),
        (b"a/b/report.txt", rb"a/b/report\.conflict-[A-Z2-7]{5}\.txt"),
        (b"README", rb"README\.conflict-[A-Z2-7]{5}"),
        (b".bashrc", rb"\.bashrc\.conflict-[A-Z2-7]{5}"),
        (b"d.d/x", rb"d\.d/x\.conflict-[A-Z2-7]{5}"),
        (b"end.", rb"end\.conflict-[A-Z2-7]{5}\."),
    ],
)
def test_copy_name(path: bytes, pattern: bytes) -> None:
    """The name says what it is, beside the file, with the extension programs go by."""
    assert re.fullmatch(pattern, copy_name(path, (1, 1), 0))
    assert re.fullmatch(pattern.replace(b"{5}", b"{5}-2"), copy_name(path, (1, 1), 1))
    assert re.fullmatch(pattern.replace(b"{5}", b"{5}-10"), copy_name(path, (1, 1), 9))


def test_copy_names_are_fixed_for_ever() -> None:
    """Every version on every device computes the same name: a change here splits folders."""
    assert copy_name(b"report.txt", (5, 1), 0) == b"report.conflict-DTZ2H.txt"
    assert copy_name(b"report.txt", (2**64 - 1, 2**63 - 1), 1) == b"report.conflict-FTJ6O-2.txt"


@given(
    st.one_of(
        st.binary(min_size=1, max_size=255), st.text(min_size=1, max_size=80).map(str.encode)
    ),
    st.integers(0, 1_000),
)
def test_g02_copy_names_fit(name: bytes, suffix: int) -> None:
    """At most 255 bytes, another name than its home's, and valid UTF-8 stays valid."""
    name = name.replace(b"/", b"x")[:255].strip(b"\0") or b"x"
    copy = copy_name(b"d/" + name, (7, 7), suffix)
    assert copy.startswith(b"d/")
    assert len(copy) <= 255 + 2
    assert b".conflict-" in copy
    try:
        name.decode()
    except UnicodeDecodeError:
        return
    copy.decode()


def test_same_looks_ignores_what_a_peer_may_lie_about() -> None:
    """Size and target follow from the content; only what the disk would change counts."""
    place = place_of(A, frozenset(), b"p")
    assert same_looks(place, place._replace(size=99, home=b"q", dots=frozenset([(1, 1)])))
    assert not same_looks(place, place._replace(mtime_ns=1))
    assert not same_looks(place, place._replace(executable=True))
