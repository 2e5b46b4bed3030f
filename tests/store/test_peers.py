"""What peers told is remembered; a full listing shows what they lack."""

from __future__ import annotations

import pathlib

from p2psync.core.ids import Dot
from p2psync.store.index import Index
from tests.support.build import AUTHOR, changes, entry

PEER, OTHER_PEER = b"p" * 32, b"q" * 32


def test_cursors_are_kept_per_peer(path: pathlib.Path) -> None:
    """A cursor is (0, 0) until it is set, and survives."""
    index = Index.open(path, start=1)
    assert index.cursor(PEER) == (0, 0)
    index.set_cursor(PEER, 2**64 - 1, 5)
    index.set_cursor(PEER, 2**64 - 2, 7)
    index.set_cursor(OTHER_PEER, 3, 1)
    index.close()

    index = Index.open(path, start=2)

    assert index.cursor(PEER) == (2**64 - 2, 7)
    assert index.cursor(OTHER_PEER) == (3, 1)
    index.close()


def test_vectors_of_a_peer_only_grow(path: pathlib.Path) -> None:
    """Known and collected are joined each for itself, and survive."""
    index = Index.open(path, start=1)
    index.join_peer(PEER, {AUTHOR: 5, 2: 2}, {AUTHOR: 1})
    index.join_peer(PEER, {AUTHOR: 3, 4: 1})
    index.join_peer(PEER, {}, {9: 9})
    index.join_peer(OTHER_PEER, {1: 1})
    expected = {AUTHOR: 5, 2: 2, 4: 1}, {AUTHOR: 1, 9: 9}
    assert (index.peer_known(PEER), index.peer_collected(PEER)) == expected
    index.close()

    index = Index.open(path, start=2)

    assert (index.peer_known(PEER), index.peer_collected(PEER)) == expected
    assert index.peers_known() == {PEER: expected[0], OTHER_PEER: {1: 1}}
    assert index.peer_known(b"stranger") == index.peer_collected(b"stranger") == {}
    index.close()


def test_vectors_handed_out_do_not_change(index: Index) -> None:
    """A vector is a value: what was answered once stays as it was."""
    index.join_peer(PEER, {1: 1})
    known = index.peer_known(PEER)

    index.join_peer(PEER, {1: 2, 3: 3})

    assert known == {1: 1}


def test_forgotten_peer_is_met_as_new(index: Index) -> None:
    """Nothing of a forgotten peer holds back collection or skips entries."""
    index.join_peer(PEER, {1: 1}, {1: 1})
    index.join_peer(OTHER_PEER, {2: 2})
    index.set_cursor(PEER, 3, 3)

    index.forget_peer(PEER)

    assert index.peers_known() == {OTHER_PEER: {2: 2}}
    assert index.peer_collected(PEER) == {}
    assert index.cursor(PEER) == (0, 0)


def missing(index: Index) -> list[tuple[bytes, list[Dot]]]:
    return list(index.listing_missing(PEER))


def test_listing_shows_what_the_peer_lacks(index: Index) -> None:
    """Each live dot of mine that was not listed is found, with what was listed there."""
    first, second = (AUTHOR, 1), (AUTHOR, 2)
    index.write(
        changes(
            index.facts(),
            entries={
                b"both": entry("x", dots=(first,)),
                b"conflict": entry("x", "y", dots=(first, second)),
                b"dead": entry(),
                b"mine": entry("x", dots=(first,)),
                b"newer-there": entry("x", dots=(first,)),
            },
        )
    )
    index.listing_begin(PEER)
    index.listing_add(PEER, [(b"both", [first]), (b"conflict", [second]), (b"theirs", [first])])
    index.listing_add(PEER, [(b"newer-there", [(7, 7)]), (b"dead", [first])])
    index.listing_add(OTHER_PEER, [(b"mine", [first])])

    assert missing(index) == [
        (b"conflict", [second]),
        (b"mine", []),
        (b"newer-there", [(7, 7)]),
    ]


def test_listing_of_many_paths(index: Index) -> None:
    """A listing is compared in bounded steps, all of it."""
    paths = [b"path-%05d" % number for number in range(3_000)]
    index.write(changes(index.facts(), entries=dict.fromkeys(paths, entry("x"))))
    index.listing_begin(PEER)
    index.listing_add(PEER, [(path, [(AUTHOR, 1)]) for path in paths if path[-1:] != b"7"])

    assert [path for path, _ in missing(index)] == [path for path in paths if path[-1:] == b"7"]


def test_listing_is_the_last_one_begun(path: pathlib.Path) -> None:
    """A new listing, the end of one and a new start leave nothing of the old one."""
    index = Index.open(path, start=1)
    index.write(changes(index.facts(), entries={b"a": entry("x")}))
    listed = [(b"a", [(AUTHOR, 1)])]
    for forget in (index.listing_begin, index.listing_end):
        index.listing_add(PEER, listed)
        assert missing(index) == []
        forget(PEER)
        assert missing(index) == [(b"a", [])]
    index.listing_add(PEER, listed)
    index.close()

    index = Index.open(path, start=2)

    assert missing(index) == [(b"a", [])]
    index.close()
