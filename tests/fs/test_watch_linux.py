"""fs.watch.linux: exact hints from one descriptor, whose watches follow the directories."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import threading
from pathlib import Path

import pytest

from p2psync.fs.watch import Hint, settling
from p2psync.fs.watch.inotify import Inotify
from p2psync.fs.watch.linux import LinuxWatching
from tests.support import looking
from tests.support.folder import mounted, run
from tests.support.looking import unprivileged
from tests.support.require import require
from tests.support.watching import TIMEOUT_S, Process, reading, touch

public = looking.public


def descriptors() -> list[int]:
    """The open inotify descriptors of this process."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}") == "anon_inode:inotify":
                found.append(int(name))
    return found


def watches() -> int:
    """How many watches this process has."""
    lines = [Path(f"/proc/self/fdinfo/{fd}").read_text() for fd in descriptors()]
    return sum(text.count("inotify wd:") for text in lines)


async def test_a_save_names_its_path_alone(tmp_path: Path) -> None:
    """A file that was written and closed is hinted at exactly, however full its directory."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "neighbour").touch()
    async with reading(LinuxWatching(), tmp_path) as it:
        it.seen = []
        (tmp_path / "d" / "x").write_bytes(b"x")
        await it.at(b"d/x")
        assert it.seen == [Hint({b"d/x"})]


async def test_an_editors_save_is_hinted_at_whole(tmp_path: Path) -> None:
    """A new file renamed over an old one is one hint for both names."""
    (tmp_path / "x").write_bytes(b"old")
    async with reading(LinuxWatching(), tmp_path) as it:
        (tmp_path / "x.tmp").write_bytes(b"new")
        (tmp_path / "x.tmp").rename(tmp_path / "x")
        hint = await it.until(lambda hint: hint.covers(b"x"))
        assert hint.paths == {b"x", b"x.tmp"}


async def test_a_file_kept_open_is_hinted_at(tmp_path: Path) -> None:
    """A log that is written and never closed is looked at all the same."""
    async with reading(LinuxWatching(), tmp_path) as it:
        with (tmp_path / "log").open("w") as log:
            log.write("line")
            log.flush()
            await it.at(b"log")


async def test_links_and_attributes_are_hinted_at(tmp_path: Path) -> None:
    """A link is made and a mode is changed without anything being closed."""
    (tmp_path / "x").touch()
    async with reading(LinuxWatching(), tmp_path) as it:
        (tmp_path / "link").symlink_to("x")
        await it.at(b"link")
        os.link(tmp_path / "x", tmp_path / "y")
        await it.at(b"y")
        (tmp_path / "x").chmod(0o755)
        await it.at(b"x")


async def test_a_directory_renamed_inside(tmp_path: Path) -> None:
    """Both names come in one hint; what is below is hinted at where it is now."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with reading(LinuxWatching(), tmp_path) as it:
        it.seen = []
        (tmp_path / "a").rename(tmp_path / "c")
        await it.at(b"c/b")
        assert it.seen == [Hint({b"a"}, trees={b"c"})]
        touch(bytes(tmp_path) + b"/c/b/x")
        await it.at(b"c/b/x")
        (tmp_path / "c").rename(tmp_path / "d")
        (tmp_path / "d" / "b").rename(tmp_path / "b")
        await it.at(b"b/x", b"c", b"d/b")
        touch(bytes(tmp_path) + b"/b/y")
        await it.at(b"b/y")
        assert watches() == 3


async def test_a_directory_moved_out(tmp_path: Path) -> None:
    """Nothing that happens in it is hinted at any more, and its watches are given back."""
    root = tmp_path / "root"
    (root / "a" / "b" / "c").mkdir(parents=True)
    async with reading(LinuxWatching(), root) as it:
        assert watches() == 4
        (root / "a" / "b").rename(tmp_path / "out")
        await it.at(b"a/b")
        touch(bytes(tmp_path) + b"/out/c/x")
        seen = await it.quiet_until(root / "z")
        assert not any(hint.covers(b"a/b/c/x") for hint in seen)
        assert watches() == 2
        (root / "a" / "b").mkdir()
        await it.at(b"a/b")
        touch(bytes(root) + b"/a/b/x")
        await it.at(b"a/b/x")


async def test_a_directory_moved_out_and_another_made(tmp_path: Path) -> None:
    """The new one of the same name is watched, with all below it."""
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (tmp_path / "other" / "b").mkdir(parents=True)
    async with reading(LinuxWatching(), root) as it:
        (root / "a").rename(tmp_path / "out")
        (tmp_path / "other").rename(root / "a")
        await it.until(lambda hint: b"a" in hint.paths)  # the old one's watches are ended
        touch(bytes(root) + b"/a/b/x")
        touch(bytes(tmp_path) + b"/out/b/y")
        await it.at(b"a/b/x")
        seen = await it.quiet_until(root / "z")
        assert not any(hint.covers(b"a/b/y") for hint in seen)


async def test_a_directory_moved_from_root_to_root(tmp_path: Path) -> None:
    """It is hinted at in both, and from then on where it is."""
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "a" / "b").mkdir(parents=True)
    other.mkdir()
    watching = LinuxWatching()
    async with reading(watching, one) as it, reading(watching, other) as there:
        (one / "a").rename(other / "a")
        await there.at(b"a/b/x")
        await it.at(b"a")
        touch(bytes(other) + b"/a/b/x")
        await there.at(b"a/b/x")
        seen = await it.quiet_until(one / "z")
        assert not any(hint.covers(b"a/b/x") for hint in seen)


async def test_i02_a_directory_that_becomes_readable(public: Path) -> None:
    """It is watched from then on, and looked at whole."""
    (public / "d").mkdir()
    (public / "d").chmod(0)
    with unprivileged():
        context = reading(LinuxWatching(), public)
        it = await context.__aenter__()
    try:
        (public / "d" / "x").touch()
        (public / "d").chmod(0o755)
        await it.at(b"d/x")
        (public / "d" / "y").touch()
        await it.at(b"d/y")
    finally:
        await context.__aexit__(None, None, None)


async def test_a_filesystem_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a watch cannot be set the event loop goes on, and then nothing has been missed."""
    real, begun, over = Inotify.add, threading.Event(), threading.Event()

    def hangs(self: Inotify, directory: int, mask: int) -> int:
        begun.set()
        assert over.wait(TIMEOUT_S)
        return real(self, directory, mask)

    async with reading(LinuxWatching(), tmp_path) as it:
        monkeypatch.setattr(Inotify, "add", hangs)
        (tmp_path / "d").mkdir()
        hinted = asyncio.create_task(it.at(b"d/x", b"y"))
        await asyncio.to_thread(begun.wait, TIMEOUT_S)
        (tmp_path / "y").touch()
        for _ in range(20):
            await asyncio.sleep(0)  # the loop would read now
        over.set()
        await hinted


async def test_many_changes_are_their_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is bounded: very many names become the directory they are in."""
    monkeypatch.setattr(settling, "WAITING", 10)
    (tmp_path / "d").mkdir()
    for number in range(20):
        (tmp_path / "d" / str(number)).touch()
    async with reading(LinuxWatching(), tmp_path) as it:
        for number in range(20):
            (tmp_path / "d" / str(number)).unlink()
        await it.until(lambda hint: b"d" in hint.directories)


@pytest.mark.slow
def test_j01_the_root_is_unmounted(tmp_path: Path) -> None:
    """That is told; what is in its place is watched until it is back."""
    require("mountns")

    async def watch() -> None:
        async with reading(LinuxWatching(), tmp_path) as it:
            run("umount", tmp_path)
            await it.until(lambda _: it.watcher.state.startswith("polling: "))
            await it.until(lambda _: it.watcher.state == "watching")
            (tmp_path / "x").touch()
            await it.at(b"x")

    mounted("size=1m", tmp_path, lambda: asyncio.run(watch()))


async def test_j03_the_root_is_removed(tmp_path: Path) -> None:
    """The watcher says so, and none of its watches is left."""
    root = tmp_path / "root"
    (root / "d" / "e").mkdir(parents=True)
    async with reading(LinuxWatching(), root) as it:
        shutil.rmtree(root)
        await it.until(lambda _: it.watcher.state.startswith("polling: "))
        assert watches() == 0


async def test_j03_the_root_is_moved_and_back(tmp_path: Path) -> None:
    """It is watched anew where it was, whole; what had been watched is given back."""
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    async with reading(LinuxWatching(), root) as it:
        root.rename(tmp_path / "away")
        await it.until(lambda _: it.watcher.state.startswith("polling: "))
        (tmp_path / "away").rename(root)
        await it.until(lambda _: it.watcher.state == "watching")
        touch(bytes(root) + b"/d/x")
        await it.at(b"d/x")
        assert watches() == 2


@pytest.mark.slow
def test_i10_what_has_a_watch_keeps_it(tmp_path: Path) -> None:
    """Where there are too few watches, those there are go on; the rest is polled."""
    require("userns")
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    limit = 'echo 5 > /proc/sys/user/max_inotify_watches && exec "$@"'
    with Process("linux", tmp_path, "unshare", "-U", "-r", "sh", "-c", limit, "sh") as watcher:
        hints = watcher.hints()
        assert "max_user_watches" in str(next(hints)["state"])
        (tmp_path / "x").touch()
        assert any(hint["paths"] == ["x"] for hint in hints)


async def test_ten_roots_have_one_descriptor(tmp_path: Path) -> None:
    """It is there while one of them is watched; each root's watches end with its watcher."""
    before = len(descriptors())
    watching = LinuxWatching()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(10):
            (tmp_path / str(number) / "d").mkdir(parents=True)
            await stack.enter_async_context(reading(watching, tmp_path / str(number)))
        (tmp_path / "more" / "d").mkdir(parents=True)
        async with reading(watching, tmp_path / "more"):
            assert watches() == 22
        assert watches() == 20
        assert len(descriptors()) == before + 1
    assert len(descriptors()) == before


async def test_o09_nothing_is_left(tmp_path: Path) -> None:
    """Cancelling who reads the hints ends the descriptor."""
    before = descriptors()

    async def read() -> None:
        hints = LinuxWatching().watcher(bytes(tmp_path)).hints(asyncio.Event())
        async with contextlib.aclosing(hints) as it:
            async for _ in it:
                started.set()

    started = asyncio.Event()
    task = asyncio.create_task(read())
    async with asyncio.timeout(TIMEOUT_S):
        await started.wait()
    assert descriptors() != before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert descriptors() == before


async def test_g03_a_very_deep_directory(tmp_path: Path) -> None:
    """Paths longer than the system takes at once are watched like others."""
    with looking.deep(tmp_path, "directory", "file"):
        async with reading(LinuxWatching(), tmp_path) as it:
            assert watches() == 1_001
            at = os.open(tmp_path, os.O_RDONLY)
            for _ in range(1_000):
                below = os.open("directory", os.O_RDONLY, dir_fd=at)
                os.close(at)
                at = below
            os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=at))
            os.close(at)
            await it.at(b"/".join([b"directory"] * 1_000) + b"/x")


async def test_i09_no_descriptors_left(tmp_path: Path) -> None:
    """A directory that could not be opened for that reason is polled, and later watched."""
    async with reading(LinuxWatching(), tmp_path) as it:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        await asyncio.to_thread(os.getpid)  # the thread that is needed exists
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            (tmp_path / "d").mkdir()
            await it.everywhere()
            assert "open files" in it.watcher.state
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        it.watcher.renew()
        await it.until(lambda _: it.watcher.state == "watching")
        touch(bytes(tmp_path) + b"/d/x")
        await it.at(b"d/x")
