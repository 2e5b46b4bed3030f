"""Dying between any two effects, and starting again: nothing lost, nothing left over.

Every act is done in a child that is killed (kill -9) just before each of its effects in turn;
then the root is opened anew and recovered, and the recovery is killed in the same way.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from p2psync.core.index import Row
from p2psync.fs import syscalls
from p2psync.fs.root import Done
from tests.support.folder import (
    DIRECTORY,
    Folder,
    Link,
    Thing,
    before_effect,
    die,
    dying_at,
    in_child,
    place_of,
)

pytestmark = pytest.mark.slow

OLD: dict[str, Thing | None] = {
    "nothing": None,
    "file": b"old",
    "link": Link(b"old"),
    "directory": DIRECTORY,
}
NEW: dict[str, Thing] = {"file": b"new", "link": Link(b"new"), "directory": DIRECTORY}


class Act(NamedTuple):
    """What is done to a folder, what it may show at x at any moment, what must not be lost."""

    do: Callable[[Folder, dict[bytes, Row]], object]
    stands: dict[bytes, Thing]
    shows: tuple[Thing | None, ...]


def putting(old: Thing | None, new: Thing) -> Act:
    """Return the act of putting one thing where another stands."""

    def do(folder: Folder, rows: dict[bytes, Row]) -> object:
        return folder.root.put(folder.prepare(new), b"d/x", rows.get(b"d/x"))

    stands: dict[bytes, Thing] = {b"d": DIRECTORY} if old is None else {b"d/x": old}
    return Act(do, stands, (old, new))


def _move(folder: Folder, rows: dict[bytes, Row]) -> object:
    return folder.root.move(b"y", b"d/x", rows[b"y"], place_of(b"moved"), rows.get(b"d/x"))


def _move_directory(folder: Folder, rows: dict[bytes, Row]) -> object:
    def children(directory: bytes) -> dict[bytes, Row]:
        return {b"in": rows[b"y/in"]} if directory == b"y" else {}

    return folder.root.move_directory(b"y", b"d/x", rows[b"y"], children)


def _remove(folder: Folder, rows: dict[bytes, Row]) -> object:
    return folder.root.remove(b"d/x", rows[b"d/x"])


def _hardlinked(folder: Folder, rows: dict[bytes, Row]) -> object:
    os.link(folder.at(b"d/x"), folder.at(b"second"))
    row = Row(rows[b"d/x"].place, folder.root.look(b"d/x"))
    return folder.root.put(folder.prepare(b"new"), b"d/x", row)


ACTS: dict[str, Act] = {
    **{
        f"put-{new}-on-{old}": putting(OLD[old], NEW[new])
        for old, new in itertools.product(OLD, NEW)
        if (old, new) != ("directory", "directory")
    },
    "move": Act(_move, {b"d": DIRECTORY, b"y": b"moved"}, (None, b"moved")),
    "move-onto": Act(_move, {b"d/x": b"old", b"y": b"moved"}, (b"old", b"moved")),
    "move-directory": Act(
        _move_directory, {b"d": DIRECTORY, b"y": DIRECTORY, b"y/in": b"in"}, (None, DIRECTORY)
    ),
    "remove": Act(_remove, {b"d/x": b"old"}, (b"old", None)),
    "remove-link": Act(_remove, {b"d/x": Link(b"old")}, (Link(b"old"), None)),
    "replace-hardlinked": Act(_hardlinked, {b"d/x": b"old"}, (b"old", b"new")),
}


@pytest.fixture(autouse=True)
def _not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a kill does not show and only takes long."""
    monkeypatch.setattr(syscalls, "fsync", lambda file: None)


@pytest.fixture(params=["flags", "no-flags"])
def flags(request: pytest.FixtureRequest) -> bool:
    """Whether names can be exchanged."""
    return bool(request.param == "flags")


def started(act: Act, path: Path, *, flags: bool) -> tuple[Folder, Callable[[], object]]:
    """Return a fresh folder, and what does the act in it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    folder = Folder.make(path)
    if not flags:
        folder.without_flags()
    rows = {at: folder.stand(at, thing) for at, thing in act.stands.items()}
    return folder, lambda: act.do(folder, rows)


def deaths(act: Act, path: Path, *, flags: bool) -> Iterator[Folder]:
    """Yield the folder as each death in the act left it, and at last as the act left it."""
    for number in itertools.count(1):
        folder, do = started(act, path, flags=flags)
        with dying_at(number) as effects:
            assert isinstance(do(), Done)
        yield folder
        folder.root.close()
        if len(effects) < number:
            return
        assert number < 60


def recover(folder: Folder) -> None:
    """Start again and recover, dying before each effect of the recovery (L06)."""
    for number in itertools.count(1):
        folder.restart()
        with dying_at(number) as effects:
            folder.root.recover()
        if len(effects) < number:
            return
        assert number < 60


def is_whole(act: Act, folder: Folder) -> None:
    """Look whether what must hold after every death does."""
    contents = {thing for thing in act.stands.values() if thing != DIRECTORY}
    assert contents <= folder.retrievable()
    assert folder.shows(b"d/x") in act.shows
    assert folder.staged() == []
    folder.root.check()


@pytest.mark.parametrize("name", ACTS)
def test_l01_nothing_is_lost_whenever_it_dies(tmp_path: Path, name: str, flags: bool) -> None:
    """Every content that stood there is shown or in the history after the next start.

    x shows its old or its new object, nothing else and never nothing (L04), and staging is
    empty (L05).
    """
    for folder in deaths(ACTS[name], tmp_path / "folder", flags=flags):
        recover(folder)
        is_whole(ACTS[name], folder)


@pytest.mark.parametrize("name", ["put-file-on-file", "put-file-on-directory", "move-onto"])
def test_l01_nothing_is_lost_by_a_real_kill(tmp_path: Path, name: str, flags: bool) -> None:
    """The same with a child process that gets SIGKILL."""
    for number in itertools.count(1):
        folder, do = started(ACTS[name], tmp_path / "folder", flags=flags)

        def child(do: Callable[[], object] = do, number: int = number) -> None:
            with before_effect(number, die):
                do()

        killed = in_child(child) == signal.SIGKILL
        folder.restart()
        folder.root.recover()
        is_whole(ACTS[name], folder)
        folder.root.close()
        if not killed:
            break


@pytest.mark.parametrize("name", [name for name in ACTS if "remove" not in name])
def test_atomic_visibility_holds_at_every_moment(tmp_path: Path, name: str) -> None:
    """Before any recovery x shows exactly its old or exactly its new object."""
    for folder in deaths(ACTS[name], tmp_path / "folder", flags=True):
        assert folder.shows(b"d/x") in ACTS[name].shows


def test_l05_thousands_of_leftovers_are_cleaned(tmp_path: Path) -> None:
    """What a killed burst had staged goes; partials, and what is nobody's of ours, stay."""
    folder = Folder.make(tmp_path)

    def child() -> None:
        for number in range(1_000):
            folder.prepare(b"%d" % number)
        folder.prepare(Link(b"text"))
        folder.prepare(DIRECTORY)
        chunk = (0, 3, place_of(b"abc").content)
        folder.root.partial(b"\1" * 32, 9).write([(chunk, b"abc")])
        die()

    assert in_child(child) == signal.SIGKILL
    folder.write(b".p2psync/staging/strange", b"?")
    assert len(folder.staged()) == 1_004
    folder.restart()
    assert folder.root.recover() == []
    assert folder.staged() == [b"01" * 32 + b".part", b"strange"]
    assert folder.visible() == {}


def test_recovery_tells_what_it_saved(tmp_path: Path) -> None:
    """A displaced file is in the history under its name; a taken one is back at its path."""
    act = ACTS["put-file-on-file"]
    saved = []
    for folder in deaths(act, tmp_path / "with", flags=True):
        folder.restart()
        saved += folder.root.recover()
    assert any(one.history and b"/x~" in one.history for one in saved)
    saved = []
    for folder in deaths(act, tmp_path / "without", flags=False):
        folder.restart()
        saved += folder.root.recover()
    assert any(one.path == b"d/x" for one in saved)
    assert not any(one.path and one.history for one in saved)


def test_a_record_of_something_else_is_void(tmp_path: Path) -> None:
    """What was displaced by a move never returns to where the moved thing came from."""
    act = ACTS["move-onto"]
    for folder in deaths(act, tmp_path / "folder", flags=True):
        folder.restart()
        folder.root.recover()
        assert folder.shows(b"y") in (None, b"moved")


def test_a_directory_that_was_not_empty_is_kept_whole(tmp_path: Path) -> None:
    """A person filled it in the moment in which the process died."""
    folder = Folder.make(tmp_path)
    folder.write(b".p2psync/staging/old-0011223344556677-d/inside", b"1")
    (saved,) = folder.root.recover()
    assert saved.history is not None
    assert folder.kept()[saved.history + b"/inside"] == b"1"
    assert b"/d~" in saved.history
    assert folder.staged() == []
