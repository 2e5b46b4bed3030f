"""Entries are sent in order of arrival, and their digest says whether two indexes agree."""

from __future__ import annotations

import pathlib
from random import Random

import pytest

from p2psync.core.entry import Entry
from p2psync.core.index import Changes, Facts
from p2psync.core.reconcile import decode
from p2psync.store.entries import PAGE_LOOK, PAGE_LOOKS
from p2psync.store.index import Index
from tests.support.build import AUTHOR, changes, entry, file_row


def fill(index: Index, count: int) -> list[bytes]:
    """Store entries of one author whose seqs are their arrivals."""
    paths = [b"path-%06d" % number for number in range(1, count + 1)]
    stored: dict[bytes, tuple[int, Entry] | None] = {
        path: (seq, entry("x", dots=((AUTHOR, seq),)))
        for seq, path in enumerate(paths, start=1)
    }
    index.write(Changes(Facts(AUTHOR, count, count, {AUTHOR: count}, {}), stored))
    return paths


def paths_of(index: Index, after: int, known: dict[int, int] | None) -> list[bytes]:
    """Read all pages; every one keeps its promises."""
    paths: list[bytes] = []
    last, more = after, True
    while more:
        items, end, more = index.page(last, known=known, limit_items=100, limit_bytes=4_000)
        assert len(items) <= 100
        assert sum(len(path) + len(body) for _, path, body in items) <= 4_000
        assert all(last < arrival <= end for arrival, _, _ in items)
        assert items == sorted(items)
        paths += [path for _, path, _ in items]
        last = end
    assert last == index.facts().arrival
    return paths


def test_pages_hold_everything_in_order(index: Index) -> None:
    """Page by page each entry comes once, in order of arrival."""
    paths = fill(index, 700)

    assert paths_of(index, 0, None) == paths
    assert paths_of(index, 650, None) == paths[650:]


def test_pages_leave_out_what_the_peer_knows(index: Index) -> None:
    """An entry goes only if its context holds a dot beyond the peer's knowledge."""
    paths = fill(index, 700)

    assert paths_of(index, 0, {AUTHOR: 690, 7: 7}) == paths[690:]
    assert paths_of(index, 0, {AUTHOR: 700}) == []
    assert paths_of(index, 0, {}) == paths


def test_an_entry_that_changes_moves_to_the_end(index: Index) -> None:
    """A peer that is behind gets the new state once, not the old one too."""
    fill(index, 3)
    index.write(changes(index.facts(), entries={b"path-000001": entry("y")}))

    page = index.page(1, known=None, limit_items=9, limit_bytes=9_999)

    assert [(arrival, path) for arrival, path, _ in page.items] == [
        (2, b"path-000002"),
        (3, b"path-000003"),
        (4, b"path-000001"),
    ]
    assert decode(page.items[-1][2]) == entry("y")


def test_one_entry_larger_than_a_page_still_goes(index: Index) -> None:
    """The limit of bytes does not stop the exchange."""
    fill(index, 2)

    page = index.page(0, known=None, limit_items=9, limit_bytes=1)

    assert ([arrival for arrival, _, _ in page.items], page.end, page.more) == ([1], 1, True)


def test_a_page_looks_at_a_bounded_number_of_entries(index: Index) -> None:
    """A million entries the peer knows are passed in bounded steps."""
    count = PAGE_LOOK * PAGE_LOOKS + 5
    fill(index, count)

    page = index.page(0, known={AUTHOR: count}, limit_items=9, limit_bytes=9_999)

    assert page == ([], count - 5, True)
    rest = index.page(count - 5, known={AUTHOR: count}, limit_items=9, limit_bytes=9_999)
    assert rest == ([], count, False)


def test_end_of_the_last_page_is_the_arrival_even_when_entries_are_gone(index: Index) -> None:
    """Collected entries leave gaps, and a cursor does not stay before one."""
    fill(index, 3)
    index.write(changes(index.facts(), entries={b"path-000003": None}))

    assert index.page(2, known=None, limit_items=9, limit_bytes=9_999) == ([], 3, False)
    assert index.page(7, known=None, limit_items=9, limit_bytes=9_999) == ([], 7, False)


def test_m13_digest_is_the_same_in_any_order(tmp_path: pathlib.Path) -> None:
    """Two indexes with the same entries have one digest, however they came to them."""
    entries = {b"path-%d" % number: entry("x", dots=((5, number + 1),)) for number in range(50)}
    two = entry("x", "y", dots=((9, 4), (3, 2)), past={8: 1, 2: 7})
    turned = Entry(
        dict(reversed(list(two.ctx.items()))), dict(reversed(list(two.live.items())))
    )
    first = Index.open(tmp_path / "first.db", start=1)
    first.write(changes(first.facts(), entries={**entries, b"conflict": two}))
    second = Index.open(tmp_path / "second.db", start=1)
    shuffled = list(entries.items())
    Random(3).shuffle(shuffled)
    second.write(changes(second.facts(), entries={b"gone": entry("z"), b"path-3": entry("q")}))
    second.write(changes(second.facts(), entries={b"conflict": turned, b"gone": None}))
    for path, held in shuffled:
        second.write(changes(second.facts(), entries={path: held}))

    assert first.digest() == second.digest()
    second.write(changes(second.facts(), entries={b"path-3": entry("other")}))
    assert first.digest() != second.digest()
    first.close()
    second.close()


def test_digest_tells_apart_what_is_path_and_what_is_entry(index: Index) -> None:
    """The same entry at another path is another state."""
    index.write(changes(index.facts(), entries={b"a": entry("x")}))
    one = index.digest()
    index.write(changes(index.facts(), entries={b"a": None, b"b": entry("x")}))

    assert index.digest() != one


def test_m13_a_tombstone_kept_or_collected_makes_no_difference(index: Index) -> None:
    """Who still has to keep one for somebody is not told to list everything anew."""
    index.write(changes(index.facts(), entries={b"a": entry("x")}))
    one = index.digest()
    index.write(changes(index.facts(), entries={b"b": entry(past={7: 1})}))
    assert index.digest() == one
    index.write(changes(index.facts(), entries={b"b": None}))

    assert index.digest() == one


def test_tombstones_without_a_row_in_pages(index: Index) -> None:
    """What may be collected: no live value, nothing on this disk; live again: no more."""
    dead = {b"dead-%02d" % number: entry() for number in range(10)}
    index.write(
        changes(
            index.facts(),
            entries={**dead, b"alive": entry("x")},
            rows={b"dead-03": file_row(b"dead-03", "x")},
        )
    )
    index.write(changes(index.facts(), entries={b"dead-04": entry("y")}))

    expected = [path for path in dead if path not in (b"dead-03", b"dead-04")]
    assert index.tombstones(limit=99) == expected
    assert index.tombstones(limit=3, after=b"dead-01") == expected[2:5]
    assert index.entries(dead) == {**dead, b"dead-04": entry("y")}


def test_live_below_survives_writes_while_it_is_read(index: Index) -> None:
    """A caller may write between two answers; what it has not reached yet is seen."""
    fill(index, 3_000)
    found = index.live_below(b"")
    first = [next(found) for _ in range(4)]
    index.write(
        changes(index.facts(), entries={b"path-002999": None, b"path-003001": entry("x")})
    )

    rest = list(found)

    assert first[0] == b"path-000001"
    assert len(first) + len(rest) == 3_000
    assert rest[-2:] == [b"path-003000", b"path-003001"]


def test_paths_are_those_of_entries_and_rows(index: Index) -> None:
    """Whatever may be needed is listed once, ascending, page by page."""
    index.write(
        changes(
            index.facts(),
            entries={b"a": entry("x"), b"b": entry()},
            rows={b"a": file_row(b"a", "x"), b"c/d": file_row(b"c/d", "y")},
        )
    )

    assert index.paths() == [b"a", b"b", b"c/d"]
    assert index.paths(limit=2) == [b"a", b"b"]
    assert index.paths(after=b"b") == [b"c/d"]


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 63, 65, 700, 2049, 5000])
def test_lists_of_any_length_are_answered(index: Index, count: int) -> None:
    """How many paths are asked for at once makes no difference."""
    fill(index, 5_000)
    wanted = [b"path-%06d" % number for number in range(1, count + 1)]

    found = index.entries([*wanted, b"absent"])

    assert set(found) == set(wanted)
