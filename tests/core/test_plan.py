"""Tests of `core.plan`: steps whose every prefix leaves the folder usable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import pytest

from p2psync.core.draft import Draft
from p2psync.core.entry import Kind
from p2psync.core.observed import Observed
from p2psync.core.paths import is_below, parent
from p2psync.core.plan import (
    Create,
    MakeDirectory,
    Move,
    PutAside,
    Remove,
    RemoveDirectory,
    Replace,
    SetMetadata,
    Step,
    contents_wanted,
    plan,
)
from tests.support.dict_index import DictIndex
from tests.support.entries import content

Tree = Mapping[bytes, str]  # path -> the text of a file; "/" is a directory, "-> x" a link
Folder = tuple[DictIndex, DictIndex]


def _observed(what: str) -> Observed:
    if what == "/":
        return Observed(Kind.DIRECTORY, b"", 0, b"", False, 0, None)
    if what.startswith("-> "):
        return Observed(Kind.LINK, content(what[3:]), 0, what[3:].encode(), False, 0, None)
    return Observed(Kind.FILE, content(what), len(what), b"", False, 0, None)


def _scan(index: DictIndex, was: Tree, now: Tree, author: int) -> None:
    draft = Draft(index, spare_author=author)
    draft.scan({p: _observed(now[p]) if p in now else None for p in {*was, *now}})
    index.write(draft.finish())


def _send(source: DictIndex, destination: DictIndex) -> None:
    draft = Draft(destination, spare_author=2)
    for path, entry in source.all_entries.items():
        draft.take(path, entry)
    draft.finish_mark(source.now.known, source.now.collected)
    destination.write(draft.finish())


def folder(before: Tree, after: Tree) -> DictIndex:
    """An index of a device whose disk is `before`, and that was told of `after`."""
    here, there = DictIndex(), DictIndex()
    _scan(there, {}, before, 1)
    _send(there, here)
    draft = Draft(here, spare_author=2)
    for path in before:
        draft.applied(path, draft.want(path), None)
    here.write(draft.finish())
    _scan(there, before, after, 1)
    _send(there, here)
    return here


def _nothing(content: bytes) -> bool:
    return False


def _anything(content: bytes) -> bool:
    return True


def carry_out(steps: list[Step], before: Tree) -> dict[bytes, str]:
    """The tree after the steps; every step finds what it was planned for."""
    tree, staged = dict(before), set[bytes]()
    for step in steps:
        above = parent(step.path)
        match step:
            case PutAside():
                staged.add(content(tree[step.path]))
            case Move():
                assert step.path not in tree
                assert not above or tree[above] == "/"
                tree[step.path] = tree.pop(step.source)
            case Create() | MakeDirectory():
                assert step.path not in tree
                assert not above or tree[above] == "/"
                tree[step.path] = _text(step.place.content, step.place.kind)
            case Replace() | SetMetadata():
                assert step.path in tree
                assert not any(is_below(p, step.path) for p in tree) or tree[step.path] != "/"
                tree[step.path] = _text(step.place.content, step.place.kind)
            case Remove():
                assert tree.pop(step.path) != "/"
            case RemoveDirectory():
                assert not any(is_below(p, step.path) for p in tree)
                assert tree.pop(step.path) == "/"
    return tree


def _text(hashed: bytes, kind: Kind) -> str:
    if kind is Kind.DIRECTORY:
        return "/"
    names = [*itertools.chain("abcdxyz", (str(i) for i in range(100)))]
    found = next(name for name in names if content(name) == hashed)
    return f"-> {found}" if kind is Kind.LINK else found


CHANGES: dict[str, tuple[Tree, Tree]] = {
    "create a tree": ({}, {b"d": "/", b"d/e": "/", b"d/e/f": "a"}),
    "remove a tree": ({b"d": "/", b"d/e": "/", b"d/e/f": "a"}, {}),
    "c10 empty directories": ({b"d": "/"}, {b"e": "/", b"e/f": "/"}),
    "d01 file to directory": ({b"p": "a"}, {b"p": "/"}),
    "d01 file to directory with a child": ({b"p": "a"}, {b"p": "/", b"p/x": "b"}),
    "d02 directory to file": ({b"p": "/", b"p/x": "a"}, {b"p": "b"}),
    "d03 file to link": ({b"p": "a"}, {b"p": "-> x"}),
    "d03 link to file": ({b"p": "-> x"}, {b"p": "a"}),
    "d03 link to directory": ({b"p": "-> x"}, {b"p": "/", b"p/x": "a"}),
    "d03 directory to link": ({b"p": "/", b"p/x": "a"}, {b"p": "-> x"}),
    "d03 link to link": ({b"p": "-> x"}, {b"p": "-> y"}),
    "d05 file and directory swapped": (
        {b"p": "a", b"q": "/", b"q/x": "b"},
        {b"q": "a", b"p": "/", b"p/x": "b"},
    ),
    "file moves into a directory of its name": ({b"p": "a"}, {b"p": "/", b"p/x": "a"}),
    "file moves out of a directory of its name": ({b"p": "/", b"p/x": "a"}, {b"p": "a"}),
    "e01 rename": ({b"p": "a"}, {b"q": "a"}),
    "e02 rename a directory": (
        {b"d": "/", b"d/x": "a", b"d/y": "b"},
        {b"e": "/", b"e/x": "a", b"e/y": "b"},
    ),
    "e03 chain": ({b"p": "a", b"q": "b", b"r": "c"}, {b"q": "a", b"r": "b", b"s": "c"}),
    "e03 chain down": ({b"q": "a", b"r": "b", b"s": "c"}, {b"p": "a", b"q": "b", b"r": "c"}),
    "e04 swap": ({b"p": "a", b"q": "b"}, {b"p": "b", b"q": "a"}),
    "e04 ring": ({b"p": "a", b"q": "b", b"r": "c"}, {b"q": "a", b"r": "b", b"p": "c"}),
    "e08 directories into each other": (
        {b"p": "/", b"p/x": "a", b"q": "/", b"q/y": "b"},
        {b"q": "/", b"q/p": "/", b"q/p/x": "a", b"q/y": "b"},
    ),
    "e11 rename onto a name just freed": ({b"p": "a", b"q": "b"}, {b"q": "a"}),
    "one becomes many": ({b"p": "a"}, {b"q": "a", b"r": "a", b"s": "a"}),
    "many become one": ({b"p": "a", b"q": "a", b"r": "a"}, {b"s": "a"}),
    "swap while one is copied": (
        {b"p": "a", b"q": "b"},
        {b"p": "b", b"q": "a", b"r": "a", b"s": "b"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_plan_reaches_the_view(name: str) -> None:
    """Carried out in order, each step finds what it was planned for, and the view results."""
    before, after = CHANGES[name]
    index = folder(before, after)
    steps = plan(index.needed, index, _anything)
    assert carry_out(steps, before) == after


@pytest.mark.parametrize(
    "name", [n for n in CHANGES if n[0] == "e" or "moves" in n or "d05" in n]
)
def test_rename_economy(name: str) -> None:
    """What is moved about is fetched from nobody."""
    before, after = CHANGES[name]
    index = folder(before, after)
    assert contents_wanted(index.needed, index, _nothing) == {}
    assert carry_out(plan(index.needed, index, _nothing), before) == after


@pytest.mark.parametrize("name", CHANGES)
def test_no_prefix_loses_bytes(name: str) -> None:
    """After every step the bytes the view wants, and that were here, are here or put aside."""
    before, after = CHANGES[name]
    index = folder(before, after)
    steps = plan(index.needed, index, _anything)
    kept = set(after.values()) & set(before.values())
    for end in range(len(steps) + 1):
        staged = {
            _text(s.row.place.content, Kind.FILE)
            for s in steps[:end]
            if isinstance(s, PutAside)
        }
        assert kept <= set(carry_out(steps[:end], before).values()) | staged | {"/"}


def test_e01_a_rename_is_one_step() -> None:
    """The file that only changed its name is moved, metadata and all."""
    index = folder({b"p": "a"}, {b"q": "a"})
    (step,) = plan(index.needed, index, _nothing)
    assert isinstance(step, Move)
    assert (step.source, step.path) == (b"p", b"q")


def test_e13_a_chain_of_thousands() -> None:
    """Numbering a whole album up by one is planned without recursion and fetches nothing."""
    names = [b"img%04d" % i for i in range(3_000)]
    texts = [str(i) for i in range(3_000)]
    index = folder(
        dict(zip(names, texts, strict=True)), dict(zip([*names[1:], b"x"], texts, strict=True))
    )
    steps = plan(index.needed, index, _nothing)
    assert sum(isinstance(step, Replace) for step in steps) == 2_999
    assert contents_wanted(index.needed, index, _nothing) == {}


def test_nothing_is_done_without_its_content() -> None:
    """What is not at hand is left alone with all that depends on it; the rest goes on."""
    index = folder({b"p": "a"}, {b"p": "b", b"d": "/", b"d/x": "c", b"e": "/"})
    steps = plan(index.needed, index, lambda hashed: hashed == content("c"))
    assert [step.path for step in steps] == [b"d", b"d/x", b"e"]
    assert contents_wanted(index.needed, index, _nothing) == {content("b"): 1, content("c"): 1}


def test_a_file_gives_its_bytes_before_what_replaces_it_is_at_hand() -> None:
    """A copied and then edited file: the copy is made from what still stands."""
    index = folder({b"p": "a"}, {b"p": "b", b"q": "a"})
    steps = plan(index.needed, index, _nothing)
    assert [type(step) for step in steps] == [PutAside, Create]


def test_a_directory_stays_while_something_unknown_is_in_it() -> None:
    """A directory whose contents are not all to be removed is not planned to go."""
    before = {b"d": "/", b"d/x": "a", b"d/y": "b"}
    index = folder(before, {})
    steps = plan([b"d", b"d/x"], index, _anything)
    assert [step.path for step in steps] == [b"d/x"]


def test_what_is_planned_brings_the_directories_above_it() -> None:
    """A batch that begins in the middle of a tree makes the tree first."""
    index = folder({}, {b"d": "/", b"d/e": "/", b"d/e/f": "a"})
    steps = plan([b"d/e/f"], index, _anything)
    assert [step.path for step in steps] == [b"d", b"d/e", b"d/e/f"]


def test_metadata_alone_moves_no_bytes() -> None:
    """A chmod or touch elsewhere is one step here."""
    index = folder({b"p": "a"}, {b"p": "a"})
    entry = index.all_entries[b"p"]
    draft = Draft(index, spare_author=3)
    draft.stamp(b"p", frozenset(entry.live), True, 7)
    index.write(draft.finish())
    (step,) = plan(index.needed, index, _nothing)
    assert isinstance(step, SetMetadata)
    assert step.place.executable


def conflicted(at_hand: Callable[[bytes], bool]) -> tuple[str, list[Step]]:
    """The loser stands here, the winner was made elsewhere: what is planned."""
    low, high = sorted("ab", key=content)
    here, there = DictIndex(), DictIndex()
    _scan(here, {}, {b"p": low}, 2)
    _scan(there, {}, {b"p": high}, 1)
    _send(there, here)
    return low, plan(here.needed, here, at_hand)


def test_g4_the_loser_stands_before_it_is_replaced() -> None:
    """Its bytes are at the copy's name before the winner takes the plain one."""
    _, steps = conflicted(_anything)
    assert [type(step) for step in steps] == [PutAside, Create, Replace]
    assert steps[1].path in steps[2].after
    assert b".conflict-" in steps[1].path


def test_the_loser_stays_until_the_winner_is_at_hand() -> None:
    """No conflict copy appears beside a file that is its equal."""
    assert conflicted(_nothing) == (conflicted(_nothing)[0], [])


def test_a_plan_for_one_place_of_a_conflict_plans_all_of_them() -> None:
    """A batch that names only the plain path does not take the loser's bytes away."""
    low, high = sorted("ab", key=content)
    here, there = DictIndex(), DictIndex()
    _scan(here, {}, {b"p": low}, 2)
    _scan(there, {}, {b"p": high}, 1)
    _send(there, here)
    assert plan([b"p"], here, _anything) == plan(here.needed, here, _anything)


def test_ignored_paths_are_not_planned() -> None:
    """What is ignored is invisible to every effect, even where something depends on it."""
    index = folder({}, {b"d": "/", b"d/x": "a", b"e": "b"})
    draft = Draft(index, spare_author=2, ignored=lambda path: path.startswith(b"d"))
    assert [step.path for step in plan(index.needed, draft, _anything)] == [b"e"]
