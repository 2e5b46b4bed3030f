"""The index answers as a dict would, and what failed has not happened."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2psync.core.entry import EMPTY, Entry, Kind, Value
from p2psync.core.index import Changes, Claim, Facts, Place, Row, Signature, Want
from p2psync.core.reconcile import encode
from p2psync.core.vector import join
from p2psync.errors import StoreError
from p2psync.store.index import Index
from p2psync.store.rows import FIRST
from tests.support.build import AUTHOR, OTHER, changes, entry, file_row
from tests.support.dict_index import DictIndex

# ---------------------------------------------------------------------- facts and starts


def test_a_new_index_knows_nothing(index: Index) -> None:
    """Fresh: no author, no arrivals, empty vectors and totals."""
    assert index.fresh
    assert index.start == 1
    assert index.facts() == Facts(0, 0, 0, {}, {})
    assert index.totals() == index.needed_totals() == (0, 0)
    assert index.digest() == bytes(32)


def test_author_is_never_used_again(path: pathlib.Path) -> None:
    """A start has no author until its first change, whatever the last start had."""
    index = Index.open(path, start=1)
    index.write(Changes(Facts(AUTHOR, 7, 0, {AUTHOR: 7}, {OTHER: 2})))
    assert index.facts().author == AUTHOR
    index.close()

    index = Index.open(path, start=2)

    assert index.facts() == Facts(0, 0, 0, {AUTHOR: 7}, {OTHER: 2})
    index.close()


def test_a_start_id_is_not_used_twice(path: pathlib.Path) -> None:
    """Two starts of one id could not be told apart by a cursor."""
    Index.open(path, start=2**64 - 1).close()

    with pytest.raises(StoreError, match="used before"):
        Index.open(path, start=2**64 - 1)


def test_arrival_of_cuts_a_cursor_down_to_its_start(path: pathlib.Path) -> None:
    """A cursor counts only as far as the start it was made under really went."""
    first, second, third = 2**64 - 3, 11, 12
    index = Index.open(path, start=first)
    index.write(changes(index.facts(), entries={b"a": entry("x"), b"b": entry("x")}))
    index.close()
    Index.open(path, start=second).close()
    index = Index.open(path, start=third)
    index.write(changes(index.facts(), entries={b"c": entry("x")}))

    assert index.arrival_of(first, 1) == 1
    assert index.arrival_of(first, 9) == 2  # made after what was rolled back
    assert index.arrival_of(second, 3) == 2
    assert index.arrival_of(third, 3) == 3
    assert index.arrival_of(third, 99) == 3
    assert index.arrival_of(77, 1) == 0  # foreign
    assert index.arrival_of(0, 0) == 0
    assert index.arrival_of(third, -5) == 0
    index.close()


def test_only_changed_components_of_knowledge_are_written(index: Index) -> None:
    """Thousands of components after years do not make every write long."""
    known = dict.fromkeys(range(1, 5000), 1)
    index.write(Changes(Facts(0, 0, 0, known, {})))
    before = index._db._connection.total_changes

    index.write(Changes(Facts(0, 0, 0, join(known, {77: 5, AUTHOR: 1}), {})))

    assert index._db._connection.total_changes - before == 3  # two components, the facts
    assert index.facts().known[77] == 5


def test_knowledge_never_shrinks(index: Index) -> None:
    """Losing a component of knowledge is a bug, and is not written."""
    index.write(Changes(Facts(0, 0, 0, {1: 1, 2: 2}, {})))

    with pytest.raises(AssertionError):
        index.write(Changes(Facts(0, 0, 0, {1: 1}, {})))

    assert index.facts().known == {1: 1, 2: 2}


def test_notes_are_kept(path: pathlib.Path) -> None:
    """Small facts survive; a second one of the key replaces the first."""
    index = Index.open(path, start=1)
    assert index.get("root") is None
    index.put("root", b"one")
    index.put("root", b"two")
    index.close()

    index = Index.open(path, start=2)

    assert index.get("root") == b"two"
    index.close()


# ---------------------------------------------------------------------- transactions


class RefusedError(Exception):
    """Something went wrong inside a transaction."""


def refuse(index: Index, act: Callable[[], None]) -> None:
    """Do something in a transaction that then fails."""
    with index.transaction():
        act()
        raise RefusedError


def test_exception_undoes_the_whole_transaction(index: Index) -> None:
    """After a rollback every answer, cached ones included, is that of before."""
    index.join_peer(b"peer", {1: 1})
    index.write(
        changes(index.facts(), entries={b"a": entry("x")}, rows={b"a": file_row(b"a", "x")})
    )
    before = index.facts(), index.totals(), index.digest(), index.peer_known(b"peer")

    def act() -> None:
        index.write(
            changes(index.facts(), entries={b"b": entry("y")}, rows={b"b": file_row(b"b", "y")})
        )
        index.join_peer(b"peer", {1: 9})
        index.put("key", b"value")

    with pytest.raises(RefusedError):
        refuse(index, act)

    assert before == (index.facts(), index.totals(), index.digest(), index.peer_known(b"peer"))
    assert index.entries([b"b"]) == {}
    assert index.get("key") is None


def test_nested_transactions_are_one(index: Index) -> None:
    """An inner transaction is durable only with the outer one."""

    def act() -> None:
        with index.transaction():
            index.put("key", b"value")

    with pytest.raises(RefusedError):
        refuse(index, act)

    assert index.get("key") is None


def test_a_failed_part_dooms_the_whole(index: Index) -> None:
    """Who swallows the failure of a part does not get the rest committed."""

    def swallow() -> None:
        with index.transaction():
            index.put("key", b"value")
            with contextlib.suppress(RefusedError):
                refuse(index, lambda: None)

    with pytest.raises(StoreError, match="part of this transaction"):
        swallow()

    assert index.get("key") is None


def test_two_entries_of_one_arrival_are_refused(index: Index) -> None:
    """An arrival names one entry; the write that says otherwise leaves no trace."""
    twice = Changes(Facts(0, 0, 1, {}, {}), {b"a": (1, entry("x")), b"b": (1, entry("y"))})

    with pytest.raises(StoreError):
        index.write(twice)

    assert index.facts().arrival == 0
    assert index.entries([b"a", b"b"]) == {}


def test_m08_impossible_rows_are_refused(index: Index) -> None:
    """The schema holds no row without a path and no negative size."""
    for path, size in ((b"", 1), (b"a", -1)):
        row = file_row(path, "x", size=size)
        with pytest.raises(StoreError):
            index.write(Changes(index.facts(), rows={path: row}))

    assert index.totals() == (0, 0)


def test_silence_writes_nothing(index: Index, path: pathlib.Path) -> None:
    """Reading, and joining what is known already, do not touch the disk."""
    index.join_peer(b"peer", {1: 1})
    log = path.with_name("index.db-wal")
    before = log.stat().st_size

    index.join_peer(b"peer", {1: 1})
    index.entries([b"a"])
    list(index.rows_below(b""))
    index.page(0, known=None, limit_items=10, limit_bytes=10)

    assert log.stat().st_size == before


# ---------------------------------------------------------------------- as a dict

NAMES = [b"a", b"a-", b"a/b", b"a/b/c", b"a/c", b"a0", b"b", b"b/\xff\xfe", b"\xff", b"c/d/e"]
paths = st.sampled_from(NAMES)
authors = st.sampled_from([1, 2, 2**63, 2**64 - 1])
dots = st.tuples(authors, st.integers(1, 5))
kinds = st.sampled_from(list(Kind))
contents = st.sampled_from([b"1" * 32, b"2" * 32, b"1" * 8 + b"3" * 24])


@st.composite
def values(draw: Any) -> Value:
    size = draw(st.integers(0, 2**40))
    dot = draw(dots)
    return Value(draw(kinds), draw(contents), size, b"", 1, draw(st.booleans()), -5, 1, dot)


@st.composite
def entries_(draw: Any) -> Entry:
    live = draw(st.dictionaries(dots, values(), max_size=2))
    ctx = draw(st.dictionaries(authors, st.integers(5, 9), min_size=1))
    return Entry(join(ctx, {author: 9 for author, _ in live}), live)


@st.composite
def places(draw: Any, path: bytes) -> Place:
    size = draw(st.integers(0, 2**40))
    home = draw(st.sampled_from([path, path, b"home", b"other"]))
    shown = draw(st.frozensets(dots, max_size=2))
    return Place(draw(kinds), draw(contents), size, b"t", draw(st.booleans()), 7, shown, home)


signatures = st.none() | st.builds(Signature, *[st.integers(0, 2**64 - 1)] * 6)


@st.composite
def steps(draw: Any) -> dict[str, Any]:
    def some(item: Any) -> dict[bytes, Any]:
        chosen = draw(st.sets(paths, max_size=4))
        return {path: draw(st.none() | item(path)) for path in chosen}

    claims = st.builds(Claim, st.just(b""), dots, st.integers(0, 3), st.booleans())
    names = st.dictionaries(
        paths, st.lists(claims, min_size=1, max_size=2, unique=True), max_size=2
    )
    return {
        "entries": some(lambda path: entries_()),
        "rows": some(lambda path: st.builds(Row, places(path), signatures)),
        "needed": some(lambda path: st.builds(Want, st.none() | places(path))),
        "claims": draw(
            st.dictionaries(st.sampled_from([b"home", b"other"]), names, max_size=2)
        ),
        "known": draw(st.dictionaries(authors, st.integers(1, 9))),
        "fails": draw(st.booleans()),
    }


def changes_of(step: dict[str, Any], before: Facts) -> Changes:
    arrival = before.arrival
    stored: dict[bytes, tuple[int, Entry] | None] = {}
    for path, new in step["entries"].items():
        arrival += new is not None
        stored[path] = None if new is None else (arrival, new)
    claims = {
        home: {
            name: list({claim[:3]: claim._replace(home=home) for claim in claims}.values())
            for name, claims in names.items()
        }
        for home, names in step["claims"].items()
    }
    for names in claims.values():
        for name, listed in names.items():
            unique = {(claim.dot, claim.suffix): claim for claim in listed}
            names[name] = list(unique.values())
    facts = Facts(before.author, before.seq, arrival, join(before.known, step["known"]), {})
    return Changes(facts, stored, step["rows"], claims, step["needed"])


def ordered(claims: dict[bytes, list[Claim]]) -> dict[bytes, list[Claim]]:
    return {name: sorted(listed) for name, listed in claims.items()}


def file_bytes(items: list[Place | None]) -> list[int]:
    return [place.size for place in items if place and place.kind is Kind.FILE]


def assert_same(index: Index, model: DictIndex) -> None:
    """Every question has the same answer."""
    everything = [*NAMES, b"home", b"absent"]
    assert index.facts() == model.facts()
    assert index.entries(everything) == model.entries(everything)
    assert index.rows(iter(everything)) == model.rows(everything)
    assert ordered(index.claims(everything)) == ordered(model.claims(everything))
    theirs = model.names_of([b"home", b"other"])
    assert {
        home: ordered(names) for home, names in index.names_of([b"home", b"other"]).items()
    } == {home: ordered(names) for home, names in theirs.items()}
    for home in (b"home", b"other", b"a"):
        assert index.shown_elsewhere(home) == model.shown_elsewhere(home)
    for path in (b"", b"a", b"a/b", b"c", b"\xff"):
        assert list(index.live_below(path)) == list(model.live_below(path))
        assert list(index.rows_below(path)) == list(model.rows_below(path))
        assert index.children(path) == children(model, path)
    assert_totals(index, model)


def children(model: DictIndex, directory: bytes) -> dict[bytes, Row]:
    begin = len(directory) + 1 if directory else 0
    return {
        path[begin:]: model.all_rows[path]
        for path in model.rows_below(directory)
        if b"/" not in path[begin:]
    }


def assert_totals(index: Index, model: DictIndex) -> None:
    standing = file_bytes([row.place for row in model.all_rows.values()])
    wanted = file_bytes([want.place for want in model.needed.values()])
    assert index.totals() == (len(standing), sum(standing))
    assert index.needed_totals() == (len(model.needed), sum(wanted))
    assert dict(index.needed(limit=99)) == model.needed
    assert [path for path, _ in index.needed(limit=99)] == sorted(model.needed)
    assert dict(index.needed_by_size(FIRST, 99)[0]) == model.needed
    for content in (b"1" * 32, b"2" * 32):
        expected = {
            (path, row)
            for path, row in model.all_rows.items()
            if row.place.kind is Kind.FILE and row.place.content == content
        }
        assert set(index.rows_with_content(content, limit=99)) == expected
    dead = {path for path, held in model.all_entries.items() if not held.live}
    assert index.tombstones(limit=99) == sorted(dead - set(model.all_rows))
    placed = {
        name
        for names in model.all_claims.values()
        for name, claims in names.items()
        if any(claim.placed for claim in claims)
    }
    assert index.conflicts() == sorted(placed)
    arrived = sorted((arrival, path) for path, arrival in model.arrived.items())
    page = index.page(0, known=None, limit_items=99, limit_bytes=10**6)
    assert page.items == [
        (arrival, path, encode(model.all_entries[path])) for arrival, path in arrived
    ]
    assert (page.end, page.more) == (model.now.arrival, False)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps(), max_size=6))
def test_answers_are_those_of_a_dict(script: list[dict[str, Any]]) -> None:
    """Whatever was written, undone and reopened, the index answers as dicts would."""
    model = DictIndex()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "index.db"
        index = Index.open(path, start=1)
        for step in script:
            changed = changes_of(step, model.facts())
            if step["fails"]:
                with pytest.raises(RefusedError):
                    refuse(index, functools.partial(index.write, changed))
            else:
                index.write(changed)
                model.write(changed)
            assert_same(index, model)
        digest = index.digest()
        index.close()
        index = Index.open(path, start=2)
        assert_same(index, model)
        assert index.digest() == digest
        empty = dict.fromkeys(model.all_entries)
        index.write(changes(index.facts(), entries=dict(empty)))
        assert index.digest() == bytes(32)
        index.close()


def test_empty_entry_is_kept_as_it_is(index: Index) -> None:
    """An entry without context and values is an odd tombstone, but comes back the same."""
    index.write(changes(index.facts(), entries={b"a": EMPTY}))

    assert index.entries([b"a"]) == {b"a": EMPTY}
