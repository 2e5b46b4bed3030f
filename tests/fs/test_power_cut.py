"""A power cut, by copying the disk while it is in use: what was said to be durable is.

What has not reached the block layer is not in the copy, so it is what a machine finds when the
power comes back.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from p2psync.core.index import Row
from p2psync.core.problem import Problem
from p2psync.fs.root import Done
from tests.support.folder import Folder, place_of, run, with_own_mounts
from tests.support.require import require

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _needs() -> None:
    require("root", "loop")


def before_and_after(
    tmp_path: Path, act: Callable[[Folder], None], check: Callable[[Folder], None]
) -> None:
    """Act in a folder on a disk of its own, cut the power, check what is there afterwards."""

    def child() -> None:
        disk, image, cut = tmp_path / "disk", tmp_path / "image", tmp_path / "cut"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(32 * 2**20)
        run("mkfs.ext4", "-q", image)
        run("mount", "-o", "loop", image, disk)
        folder = Folder.make(disk)
        act(folder)
        run("cp", "--sparse=always", image, cut)
        folder.root.close()
        run("umount", disk)
        run("mount", "-o", "loop", cut, disk)
        folder = Folder.make(disk)
        folder.root.recover()
        check(folder)
        folder.root.close()
        run("umount", disk)

    with_own_mounts(child)
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("group", [False, True])
def test_l02_what_was_synced_is_there_after_a_power_cut(tmp_path: Path, group: bool) -> None:
    """One file by the fast path, or many with two syncs: new in place, old in the history."""
    names = [b"d/%d" % number for number in range(20 if group else 1)]

    def act(folder: Folder) -> None:
        rows = {name: folder.stand(name, b"old " + name) for name in names}
        folder.root.sync()
        prepared = {name: folder.prepare(b"new " + name) for name in names}
        if group:
            folder.root.sync()
        else:
            folder.root.sync_file(prepared[names[0]])
        for name in names:
            assert isinstance(folder.root.put(prepared[name], name, rows[name]), Done)
        if group:
            folder.root.sync()
        else:
            folder.root.sync_directories([b"d"])

    def check(folder: Folder) -> None:
        for name in names:
            assert folder.shows(name) == b"new " + name
            assert b"old " + name in folder.kept().values()

    before_and_after(tmp_path, act, check)


def test_l02_what_was_not_synced_is_old_or_new(tmp_path: Path) -> None:
    """Never part of it, never nothing, and the old content is somewhere."""

    def act(folder: Folder) -> None:
        row = folder.stand(b"x", b"old")
        gone = folder.stand(b"gone", b"gone")
        folder.root.sync()
        prepared = folder.prepare(b"new")
        folder.root.sync_file(prepared)
        assert isinstance(folder.root.put(prepared, b"x", row), Done)
        assert isinstance(folder.root.remove(b"gone", gone), Done)

    def check(folder: Folder) -> None:
        assert folder.shows(b"x") in (b"old", b"new")
        assert {b"old", b"gone"} <= folder.retrievable()

    before_and_after(tmp_path, act, check)


def test_l12_chunks_survive_a_power_cut_only_when_they_are_right(tmp_path: Path) -> None:
    """What reached the disk is found, the rest is fetched again; the end is verified."""
    data = bytes(range(256)) * 1_024
    place = place_of(data)
    half = len(data) // 2
    chunks = [(0, half, place_of(data[:half]).content)]
    chunks.append((half, half, place_of(data[half:]).content))

    def act(folder: Folder) -> None:
        partial = folder.root.partial(place.content, len(data))
        partial.write([(chunks[0], data[:half])])
        folder.root.sync()
        partial.write([(chunks[1], data[half:])])
        partial.close()

    def check(folder: Folder) -> None:
        partial = folder.root.partial(place.content, len(data))
        lacking = partial.lacks(chunks)
        assert chunks[0] not in lacking
        for offset, size, content in lacking:
            partial.write([((offset, size, content), data[offset : offset + size])])
        prepared = partial.finish(place)
        assert not isinstance(prepared, Problem)
        put = folder.root.put(prepared, b"x", None)
        assert isinstance(put, Done)
        assert folder.shows(b"x") == data
        assert isinstance(folder.root.remove(b"x", Row(place, put.signature)), Done)

    before_and_after(tmp_path, act, check)
