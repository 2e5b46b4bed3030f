"""Tests of `fs.relocate`: a directory is renamed whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from p2psync.core import paths
from p2psync.core.index import Row
from p2psync.core.problem import Problem
from p2psync.fs.ground import Surprised
from p2psync.fs.place import Done, Outcome
from tests.support.folder import DIRECTORY, Folder, Link, Thing, before_effect

STANDS: Mapping[bytes, Thing] = {
    b"d": DIRECTORY,
    b"d/a": b"1",
    b"d/l": Link(b"a"),
    b"d/e": DIRECTORY,
    b"d/e/b": b"2",
}


class Standing:
    """A folder in which a directory stands, and its rows."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.folder = Folder.make(path)
        self.rows = {at: self.folder.stand(at, thing) for at, thing in STANDS.items()}
        self.before = self.folder.visible()

    def children(self, directory: bytes) -> dict[bytes, Row]:
        """The rows of a directory's children, by name."""
        return {
            paths.name(path): row
            for path, row in self.rows.items()
            if paths.parent(path) == directory
        }

    def move(self, path: bytes = b"x") -> Outcome:
        """Rename the directory."""
        row = self.rows[b"d"]
        return self.folder.root.move_directory(b"d", path, row, self.children)

    def untouched(self) -> bool:
        """Whether all of it is where it was."""
        visible = self.folder.visible()
        return all(visible.get(path) == thing for path, thing in self.before.items())


@pytest.fixture
def it(tmp_path: Path) -> Standing:
    return Standing(tmp_path / "folder")


@pytest.fixture(params=["flags", "no-flags"])
def either(request: pytest.FixtureRequest, it: Standing) -> Standing:
    """With and without renames that never replace."""
    if request.param == "no-flags":
        it.folder.without_flags()
    return it


def test_it_is_the_same_directory_under_another_name(either: Standing) -> None:
    """One rename; nothing goes into the history, nothing is staged."""
    folder = either.folder
    inode = os.stat(folder.at(b"d")).st_ino
    assert isinstance(either.move(), Done)
    assert os.stat(folder.at(b"x")).st_ino == inode
    assert folder.visible() == {b"x" + path[1:]: thing for path, thing in either.before.items()}
    assert folder.kept() == {}
    assert folder.staged() == []


@pytest.mark.parametrize(
    ("path", "thing"), [(b"d/new", b"?"), (b"d/e/new", DIRECTORY), (b"d/e/n", Link(b"?"))]
)
def test_what_nobody_knows_of_is_not_moved_along(
    it: Standing, path: bytes, thing: Thing
) -> None:
    """Something ignored, or saved a moment ago: nothing is done."""
    it.folder.write(path, thing)
    assert it.move() == Surprised(path, None)
    assert it.untouched()


def test_what_is_not_as_its_row_says_stops_it(it: Standing) -> None:
    """An edit with the size and mtime of before, or a file that is gone."""
    then = os.stat(it.folder.at(b"d/e/b"))
    Path(os.fsdecode(it.folder.at(b"d/e/b"))).write_bytes(b"3")
    os.utime(it.folder.at(b"d/e/b"), ns=(then.st_atime_ns, then.st_mtime_ns))
    assert it.move() == Surprised(b"d/e/b", None)
    os.unlink(it.folder.at(b"d/e/b"))
    assert it.move() == Surprised(b"d/e/b", None)


def test_a_row_without_a_signature_is_compared_by_content(it: Standing) -> None:
    """It was put there within the timestamps' grain."""
    it.rows[b"d/a"] = it.rows[b"d/a"]._replace(signature=None)
    place = it.rows[b"d/a"].place
    it.rows[b"d/a"] = Row(place._replace(content=b"?" * 32), None)
    assert it.move() == Surprised(b"d/a", None)
    it.rows[b"d/a"] = Row(place, None)
    assert isinstance(it.move(), Done)


@pytest.mark.parametrize("thing", [b"mine", DIRECTORY, Link(b"mine")])
def test_nothing_is_replaced(either: Standing, thing: Thing) -> None:
    """Whatever stands at the new name stays, and so does the directory."""
    either.folder.write(b"x", thing)
    if thing == DIRECTORY:
        either.folder.write(b"x/in", b"it")
    outcome = either.move()
    assert isinstance(outcome, Surprised | Problem)
    assert outcome.path == b"x"
    assert either.untouched()
    assert either.folder.shows(b"x") == thing


def test_another_directory_of_the_name_is_not_moved(it: Standing) -> None:
    """Somebody swapped it before the look, or between look and rename: it goes back."""
    folder = it.folder

    def swap() -> None:
        os.rename(folder.at(b"d"), folder.at(b"theirs"))
        os.mkdir(folder.at(b"d"))

    with before_effect(1, swap):
        assert isinstance(it.move(), Surprised)
    assert folder.shows(b"x") is None
    assert folder.shows(b"d") == DIRECTORY
    assert folder.shows(b"theirs/a") == b"1"
    assert isinstance(it.move(), Surprised)
    assert folder.shows(b"x") is None


def test_a_save_between_look_and_rename_comes_along(it: Standing) -> None:
    """Nothing is lost; the scan finds it under the new name."""
    with before_effect(1, lambda: it.folder.write(b"d/saved", b"now")):
        assert isinstance(it.move(), Done)
    assert it.folder.shows(b"x/saved") == b"now"


def test_a_link_in_the_way_is_not_followed(it: Standing) -> None:
    """Confinement: neither from nor to a place behind a link."""
    it.folder.write(b"out", Link(b"d"))
    assert isinstance(it.move(b"out/x"), Surprised)
    assert it.untouched()
