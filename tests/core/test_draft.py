"""Tests of `core.draft`: one step of the rules over an index."""

from __future__ import annotations

import pytest

from p2psync.core.draft import Draft
from p2psync.core.entry import Entry, Kind
from p2psync.core.index import Changes, Signature, Want
from p2psync.core.observed import Observed
from p2psync.core.view import copy_name, implicit, view
from tests.support.dict_index import DictIndex
from tests.support.entries import content, directory, entry, file

SIGNATURE = Signature(1, 2, 3, 4, 5, 6)


def found(text: str, mtime_ns: int = 0, signature: Signature | None = None) -> Observed:
    return Observed(Kind.FILE, content(text), len(text), b"", False, mtime_ns, signature)


DIRECTORY = Observed(Kind.DIRECTORY, b"", 4_096, b"", True, 77, None)


class Device:
    """An index, and a draft for every step of it."""

    def __init__(self, author: int) -> None:
        self.index, self.author = DictIndex(), author

    def draft(self) -> Draft:
        return Draft(self.index, spare_author=self.author)

    def write(self, draft: Draft) -> Changes:
        changes = draft.finish()
        self.index.write(changes)
        return changes

    def scan(self, **observed: Observed | None) -> Changes:
        draft = self.draft()
        draft.scan({path.encode(): what for path, what in observed.items()})
        return self.write(draft)

    def take(self, path: bytes, incoming: Entry) -> bool:
        draft = self.draft()
        changed = draft.take(path, incoming)
        self.write(draft)
        return changed

    def apply(self) -> None:
        draft = self.draft()
        for path, want in list(self.index.needed.items()):
            draft.applied(path, want.place, None)
        self.write(draft)


@pytest.fixture
def here() -> Device:
    return Device(5)


def test_a_first_change_takes_the_spare_author(here: Device) -> None:
    """Numbers start at 1, and what was made is known and has an arrival."""
    changes = here.scan(p=found("a"))
    assert changes.facts.author == 5
    assert (changes.facts.seq, changes.facts.arrival) == (1, 1)
    assert changes.facts.known == {5: 1}
    assert changes.entries == {b"p": (1, Entry({5: 1}, {(5, 1): file("a", (5, 1))}))}
    assert changes.needed == {b"p": None}


def test_the_author_of_this_start_goes_on(here: Device) -> None:
    """A later step does not take another id."""
    here.scan(p=found("a"))
    here.author = 6
    assert here.scan(q=found("b")).facts == Draft(here.index, spare_author=9).finish().facts
    assert here.index.now.seq == 2


def test_silence(here: Device) -> None:
    """A look that finds what the rows say changes nothing."""
    here.scan(p=found("a", signature=SIGNATURE))
    changes = here.scan(p=found("a", signature=SIGNATURE), q=None)
    assert not changes.entries
    assert not changes.rows
    assert not changes.needed


def test_only_the_signature_changed(here: Device) -> None:
    """The row remembers the new signature; nobody is told anything."""
    here.scan(p=found("a"))
    changes = here.scan(p=found("a", signature=SIGNATURE))
    assert not changes.entries
    assert here.index.all_rows[b"p"].signature == SIGNATURE


def test_metadata_keeps_the_dot(here: Device) -> None:
    """A touch has a dot of its own in the context, the value keeps its own."""
    here.scan(p=found("a"))
    here.scan(p=found("a", mtime_ns=9))
    stored = here.index.all_entries[b"p"]
    assert stored.ctx == {5: 2}
    (value,) = stored.live.values()
    assert (5, 1) in stored.live
    assert (value.mtime_ns, value.stamp_height, value.stamp_dot) == (9, 2, (5, 2))


def test_directories_have_no_metadata(here: Device) -> None:
    """Whatever the disk says of a directory's size, mode and time is not told."""
    here.scan(d=DIRECTORY)
    assert here.index.all_entries[b"d"] == entry(directory((5, 1)))
    assert not here.scan(d=DIRECTORY._replace(mtime_ns=1)).entries


def test_a_file_and_its_directory_found_together(here: Device) -> None:
    """The directory is made before what it holds, so it is more than implicit."""
    draft = here.draft()
    draft.scan({b"d/x": found("a"), b"d": DIRECTORY})
    here.write(draft)
    assert here.index.all_entries[b"d"].live
    assert not here.index.all_claims


def test_an_implicit_directory_is_adopted(here: Device) -> None:
    """A directory made to hold an incoming file says nothing of its own."""
    here.take(b"d/x", entry(file("a", (1, 1))))
    assert here.index.needed[b"d"] == Want(implicit(b"d"))
    changes = here.scan(d=DIRECTORY)
    assert not changes.entries
    assert here.index.needed.keys() == {b"d/x"}


def test_deleting_says_what_was_seen(here: Device) -> None:
    """A tombstone with a dot of its own, under a new arrival."""
    here.scan(p=found("a"))
    changes = here.scan(p=None)
    assert changes.entries == {b"p": (2, Entry({5: 2}, {}))}
    assert changes.rows == {b"p": None}


def test_deleting_what_is_superseded_says_nothing(here: Device) -> None:
    """The newer value is fetched."""
    here.scan(p=found("a"))
    here.take(b"p", entry(file("b", (1, 1)), ctx={5: 1}))
    changes = here.scan(p=None)
    assert not changes.entries
    assert here.index.needed[b"p"].place is not None


def test_refresh(here: Device) -> None:
    """A row whose bytes equal the view's takes the view's dots: an equal edit is no work."""
    here.scan(p=found("a"))
    here.take(b"p", entry(file("a", (1, 1))))
    assert here.index.all_rows[b"p"].place.dots == {(1, 1), (5, 1)}
    assert not here.index.needed


def test_take_says_whether_it_learnt(here: Device) -> None:
    """The second time nothing is stored and no arrival used."""
    incoming = entry(file("a", (1, 1)))
    assert here.take(b"p", incoming)
    assert not here.take(b"p", incoming)
    assert here.index.now.arrival == 1


def test_what_was_collected_is_ignored(here: Device) -> None:
    """An old entry of a path whose tombstone is gone does not rise again."""
    draft = here.draft()
    draft.finish_mark({1: 3}, {1: 3})
    here.write(draft)
    assert not here.take(b"p", entry(file("a", (1, 2))))
    assert not here.index.all_entries


@pytest.mark.parametrize("vector", [{1: 2**32 + 1}, {1: 2**63}])
def test_t28_an_inflated_seq_is_refused(here: Device, vector: dict[int, int]) -> None:
    """Nobody can use up an author's numbers, by an entry or by a mark."""
    draft = here.draft()
    with pytest.raises(ValueError, match="far beyond"):
        draft.take(b"p", Entry(vector, {}))
    with pytest.raises(ValueError, match="far beyond"):
        draft.finish_mark(vector, {})
    with pytest.raises(ValueError, match="far beyond"):
        draft.finish_mark({}, vector)
    assert not draft.finish().entries


def test_drop(here: Device) -> None:
    """A full listing kills what its sender knows and does not list, and nothing else."""
    here.take(b"p", Entry({1: 2, 2: 1}, {(1, 2): file("a", (1, 2)), (2, 1): file("b", (2, 1))}))
    draft = here.draft()
    draft.drop(b"p", {1: 2}, [])
    draft.drop(b"q", {1: 2}, [])
    here.write(draft)
    assert here.index.all_entries[b"p"].live.keys() == {(2, 1)}
    draft = here.draft()
    draft.drop(b"p", {2: 1}, [(2, 1)])
    assert not draft.finish().entries


def test_collect(here: Device) -> None:
    """A tombstone goes when every member has it and no row is left."""
    here.scan(p=found("a"), q=found("b"), r=found("c"))
    here.scan(p=None, q=None)
    ctx = here.index.all_entries[b"p"].ctx
    draft = here.draft()
    draft.collect([{5: 3}, {5: 2}], [b"p", b"q", b"r", b"nowhere"])
    draft.collect([{5: 4}], [b"p", b"r"])
    changes = here.write(draft)
    assert changes.entries == {b"p": None}
    assert changes.facts.collected == ctx
    assert here.index.all_entries.keys() == {b"q", b"r"}


def test_give_up(here: Device) -> None:
    """What nobody holds is taken off by a change of its own; what is not live by none."""
    here.take(b"p", entry(file("a", (1, 1))))
    draft = here.draft()
    draft.give_up(b"p", [(9, 9)])
    draft.give_up(b"p", [(1, 1)])
    here.write(draft)
    assert here.index.all_entries[b"p"] == Entry({1: 1, 5: 1}, {})
    assert not here.index.needed


def test_forget_row(here: Device) -> None:
    """Nothing is claimed about the path, and the view wants it again."""
    here.scan(p=found("a"))
    draft = here.draft()
    draft.forget_row(b"p")
    changes = here.write(draft)
    assert not changes.entries
    assert here.index.needed.keys() == {b"p"}


def test_ignored_paths_are_never_needed(here: Device) -> None:
    """They are known and sent on, and nothing is wanted on this disk."""
    draft = Draft(here.index, spare_author=5, ignored=lambda path: path == b"p")
    draft.take(b"p", entry(file("a", (1, 1))))
    draft.take(b"q", entry(file("a", (1, 2))))
    changes = draft.finish()
    assert changes.entries.keys() == {b"p", b"q"}
    assert changes.needed[b"p"] is None
    assert changes.needed[b"q"] is not None


def test_a_new_author_makes_own_values_anew(here: Device) -> None:
    """Old dots of this author are off, new ones on; contents, winners and others' stay."""
    here.scan(p=found("a"), d=DIRECTORY)
    here.take(b"q", entry(file("b", (1, 1))))
    here.apply()
    draft = here.draft()
    assert not draft.overclaims({5: 2})
    assert draft.overclaims({5: 3})
    before = {path: place[:6] for path, place in view(here.index.all_entries).items()}
    draft.new_author(8)
    here.write(draft)
    assert {path: place[:6] for path, place in view(here.index.all_entries).items()} == before
    authors = {dot[0] for e in here.index.all_entries.values() for dot in e.live}
    assert authors == {8, 1}
    assert here.index.now.author == 8
    assert not here.index.needed
    assert here.index.all_rows[b"p"].place.dots == here.index.all_entries[b"p"].live.keys()


def test_want_sees_the_changes_so_far(here: Device) -> None:
    """A draft answers with what it would leave behind."""
    draft = here.draft()
    assert draft.want(b"p") is None
    draft.take(b"p", entry(file("a", (1, 1))))
    want = draft.want(b"p")
    assert want is not None
    assert want.content == content("a")
    draft.take(b"p/x", entry(file("b", (1, 2))))
    assert draft.want(b"p") == implicit(b"p")
    assert draft.want(copy_name(b"p", (1, 1), 0)) is not None


def test_copies_share_colliding_names(here: Device) -> None:
    """A copy that gives way to an ordinary file comes back when the file goes."""
    a, b = file("a", (1, 1)), file("b", (2, 1))
    loser = (1, 1) if a.content < b.content else (2, 1)
    name, aside = copy_name(b"p", loser, 0), copy_name(b"p", loser, 1)
    here.take(b"p", Entry({1: 1, 2: 1}, {(1, 1): a, (2, 1): b}))
    assert here.index.needed.keys() == {b"p", name}
    here.take(name, entry(file("c", (3, 1))))
    assert here.index.needed.keys() == {b"p", name, aside}
    here.take(name, Entry({3: 2}, {}))
    assert here.index.needed.keys() == {b"p", name}
    here.take(b"p", entry(a, ctx={1: 1, 2: 2}))
    assert here.index.needed.keys() == {b"p"}
    assert not here.index.all_claims


def test_a_batch_asks_the_index_a_handful_of_times(here: Device) -> None:
    """A thousand paths cost no more questions than ten."""
    paths = [b"d%d/f%d" % (i % 7, i) for i in range(1_000)]
    draft = here.draft()
    draft.load(paths)
    for i, path in enumerate(paths, 1):
        draft.take(path, entry(file("a", (1, i))))
    here.write(draft)
    assert here.index.reads <= 10
    assert len(here.index.needed) == 1_007
