"""A disk that is really full, really read-only, really out of inodes (I04, I05, I07)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2psync.core.index import Row
from p2psync.core.problem import Problem, Reason
from p2psync.fs.partial import Chunk
from p2psync.fs.root import Done
from tests.support.folder import Folder, mounted, place_of, run
from tests.support.require import require

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _needs() -> None:
    require("root", "mountns")


def test_i05_a_full_disk(tmp_path: Path) -> None:
    """The old file is intact, deletes go on, and all resumes when there is space again."""

    def child() -> None:
        folder = Folder.make(tmp_path)
        data = os.urandom(400_000)
        row = folder.stand(b"x", b"old")
        filler = folder.stand(b"filler", os.urandom(500_000))
        place = place_of(data)
        problem = folder.root.prepare_bytes(place.content, data, place)
        assert isinstance(problem, Problem)
        assert problem.reason is Reason.NO_SPACE
        chunk: Chunk = (0, len(data), place.content)
        partial = folder.root.partial(place.content, len(data))
        with pytest.raises(OSError, match="No space"):
            partial.write([(chunk, data)])
        partial.close()
        assert folder.shows(b"x") == b"old"
        assert isinstance(folder.root.remove(b"filler", filler), Done)
        assert folder.root.prune_history(2**62)
        partial = folder.root.partial(place.content, len(data))
        assert partial.lacks([chunk]) == [chunk]
        partial.write([(chunk, data)])
        prepared = partial.finish(place)
        assert not isinstance(prepared, Problem)
        folder.root.sync()
        assert isinstance(folder.root.put(prepared, b"x", row), Done)
        assert folder.shows(b"x") == data

    mounted("size=768k", tmp_path, child)


def test_i05_what_will_not_fit_is_not_begun(tmp_path: Path) -> None:
    """A large file too large for the disk is known to be so before its first chunk."""

    def child() -> None:
        partial = Folder.make(tmp_path).root.partial(bytes(32), 10**6)
        chunks = [(at, 10**5, bytes([at % 251] * 32)) for at in range(0, 10**6, 10**5)]
        with pytest.raises(OSError, match="No space"):
            partial.check_room(chunks)
        partial.check_room(chunks[:3])
        partial.check_room([(at, 10**5, bytes(32)) for at, _, _ in chunks])  # zeros, perhaps
        partial.close()

    mounted("size=768k", tmp_path, child)


def test_i07_no_inodes_left(tmp_path: Path) -> None:
    """A new file is a problem, a delete is not."""

    def child() -> None:
        folder = Folder.make(tmp_path)
        row = folder.stand(b"x", b"old")
        place = place_of(b"new")
        for _ in range(30):
            prepared = folder.root.prepare_bytes(place.content, b"new", place)
        assert isinstance(prepared, Problem)
        assert prepared.reason is Reason.NO_SPACE
        assert isinstance(folder.root.remove(b"x", row), Done)
        assert b"old" in folder.retrievable() or folder.staged()

    mounted("size=1m,nr_inodes=20", tmp_path, child)


def test_i04_a_disk_that_becomes_read_only(tmp_path: Path) -> None:
    """Every effect is a problem with its reason; opening works, and so does all afterwards."""

    def child() -> None:
        folder = Folder.make(tmp_path)
        row = folder.stand(b"x", b"old")
        prepared = folder.prepare(b"new")
        _remount(tmp_path, "ro")
        place = place_of(b"new")
        outcomes = [
            folder.root.prepare_bytes(place.content, b"new", place),
            folder.root.put(prepared, b"x", row),
            folder.root.put(prepared, b"y", None),
            folder.root.remove(b"x", row),
            folder.root.make_directory(b"d"),
            folder.root.set_metadata(b"x", place_of(b"old", mtime_ns=5), row),
            folder.root.move(b"x", b"y", row, row.place),
        ]
        for outcome in outcomes:
            assert isinstance(outcome, Problem)
            assert outcome.reason is Reason.READ_ONLY
        folder.root.check()
        folder.restart()
        _remount(tmp_path, "rw")
        row = Row(row.place, folder.root.look(b"x"))
        assert isinstance(folder.root.put(prepared, b"x", row), Done)
        assert folder.visible() == {b"x": b"new"}

    mounted("size=1m", tmp_path, child)


def test_h13_a_mount_inside_the_folder_is_a_problem(tmp_path: Path) -> None:
    """Nothing can be renamed across, and nothing is copied over instead."""

    def child() -> None:
        folder = Folder.make(tmp_path)
        folder.root.make_directory(b"d")
        run("mount", "-t", "tmpfs", "tmpfs", tmp_path / "d")
        row = folder.stand(b"d/x", b"old")
        outcomes = [
            folder.root.put(folder.prepare(b"new"), b"d/y", None),
            folder.root.put(folder.prepare(b"new"), b"d/x", row),
            folder.root.remove(b"d/x", row),
            folder.root.move(b"d/x", b"y", row, row.place),
        ]
        for outcome in outcomes:
            assert isinstance(outcome, Problem)
            assert outcome.reason is Reason.MOUNTED
        assert folder.shows(b"d/x") == b"old"

    mounted("size=1m", tmp_path, child)


def _remount(path: Path, how: str) -> None:
    run("mount", "-o", f"remount,{how}", path)
