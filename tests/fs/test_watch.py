"""fs.watch: hints come soon, survive what kills watchfiles, and lead nowhere outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from p2psync.fs import watch
from p2psync.fs.watch import HINTED_DIRECTORIES, Hint, Watcher
from tests.support import looking
from tests.support.looking import unprivileged
from tests.support.require import require

public = looking.public

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 20.0


class Watching:
    """A watcher at work: what it hinted at so far, and a way to wait for more."""

    def __init__(self, watcher: Watcher, hints: AsyncIterator[Hint]) -> None:
        self.watcher = watcher
        self._hints = hints
        self.seen: list[Hint] = []

    async def until(self, fits: Callable[[Hint], bool]) -> Hint:
        """Read hints up to the first that fits."""
        async with asyncio.timeout(TIMEOUT_S):
            async for hint in self._hints:
                self.seen.append(hint)
                if fits(hint):
                    return hint
        raise AssertionError("the hints ended")

    async def at(self, *directories: bytes) -> None:
        """Read hints until all these directories, at least, were named by one or several."""
        wanted = set(directories)

        def fits(hint: Hint) -> bool:
            wanted.difference_update(hint.paths)
            return not wanted

        await self.until(fits)

    async def everywhere(self) -> None:
        """Read hints until one is for everything."""
        await self.until(lambda hint: hint.everything)

    async def quiet_until(self, touched: Path) -> list[Hint]:
        """Make one change more, in the root itself; return all hints up to the one for it."""
        self.seen = []
        touch(bytes(touched))
        await self.at(b"")
        return self.seen


@contextlib.asynccontextmanager
async def watching(path: Path) -> AsyncIterator[Watching]:
    """Watch a directory; the watches exist when the body begins."""
    stop = asyncio.Event()
    watcher = Watcher(bytes(path))
    hints = watcher.hints(stop)
    it = Watching(watcher, hints)
    try:
        await it.until(lambda _: watcher.state == "watching")
        yield it
    finally:
        stop.set()
        async with asyncio.timeout(TIMEOUT_S):
            async for _ in hints:
                pass


def touch(path: bytes) -> None:
    """Make an empty file."""
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))


def watch_threads() -> list[threading.Thread]:
    """Threads of watchers that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "watch"]


async def test_the_first_hint_is_everything(tmp_path: Path) -> None:
    """What changed before the watches existed is found by the scan the first hint asks for."""
    async with watching(tmp_path) as it:
        assert it.seen == [Hint(everything=True)]


async def test_a_file_hints_at_its_directory(tmp_path: Path) -> None:
    """A write, a rename and a deletion lead to the directories they were in."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with watching(tmp_path) as it:
        (tmp_path / "a" / "b" / "x").write_bytes(b"x")
        await it.at(b"a/b")
        (tmp_path / "a" / "b" / "x").rename(tmp_path / "a" / "x")
        await it.at(b"a", b"a/b")
        (tmp_path / "a" / "x").unlink()
        await it.at(b"a")
        (tmp_path / "y").touch()
        await it.at(b"")
        assert not any(hint.everything or hint.rules for hint in it.seen[1:])


async def test_a_directory_hints_at_all_below(tmp_path: Path) -> None:
    """Of what is moved in or made quickly, every directory is named, and its parent."""
    (tmp_path / "outside" / "c" / "d").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    async with watching(tmp_path / "root") as it:
        (tmp_path / "outside").rename(tmp_path / "root" / "in")
        await it.at(b"", b"in", b"in/c", b"in/c/d")
        shutil.rmtree(tmp_path / "root" / "in")
        await it.at(b"")


@pytest.mark.slow
async def test_nested_new_directories_are_looked_at_twice(tmp_path: Path) -> None:
    """Files made in fresh directories before those were watched are hinted at all the same."""
    async with watching(tmp_path) as it:
        for number in range(200):
            (tmp_path / str(number) / "a" / "b" / "c").mkdir(parents=True)
            (tmp_path / str(number) / "a" / "b" / "c" / "x").touch()
        deepest = [f"{number}/a/b/c".encode() for number in range(200)]
        named: Counter[bytes] = Counter()

        def twice(hint: Hint) -> bool:
            named.update(hint.paths)
            return all(named[path] >= 2 for path in deepest)

        await it.until(twice)  # the second time when the watches must exist


async def test_r04_our_own_directory_is_not_hinted_at(tmp_path: Path) -> None:
    """Staging and history are nobody's business."""
    (tmp_path / ".p2psync" / "staging").mkdir(parents=True)
    async with watching(tmp_path) as it:
        (tmp_path / ".p2psync" / "staging" / "x").touch()
        (tmp_path / ".p2psync" / "y").mkdir()
        seen = await it.quiet_until(tmp_path / "z")
        assert {path for hint in seen for path in hint.paths} == {b""}


async def test_the_ignore_file_is_told_apart(tmp_path: Path) -> None:
    """A hint says when the rules were touched, and only those of the root."""
    (tmp_path / "d").mkdir()
    async with watching(tmp_path) as it:
        (tmp_path / "d" / ".p2psyncignore").touch()
        await it.at(b"d")
        assert not any(hint.rules for hint in it.seen)
        (tmp_path / ".p2psyncignore").touch()
        assert b"" in (await it.until(lambda hint: hint.rules)).paths


async def test_h04_nothing_outside_is_hinted_at(tmp_path: Path) -> None:
    """watchfiles follows a link out of the root; what happens there is none of our business."""
    (tmp_path / "outside" / "d").mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    async with watching(root) as it:
        (tmp_path / "outside" / "x").touch()
        (tmp_path / "outside" / "d" / "y").touch()
        seen = await it.quiet_until(root / "z")
        assert {path for hint in seen for path in hint.paths} == {b""}


async def test_h01_a_link_inside_hides_nothing(tmp_path: Path) -> None:
    """What is reported under the name of a link to a directory is traced to the directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "z").symlink_to("real")
    async with watching(tmp_path) as it:
        (tmp_path / "real" / "x").touch()
        await it.at(b"real")
        (tmp_path / "a" / "y").touch()
        await it.at(b"real")
        assert not any(hint.paths & {b"a", b"z"} for hint in it.seen)


async def test_h14_the_root_may_be_a_link(tmp_path: Path) -> None:
    """A root reached through a link is watched where it is."""
    (tmp_path / "real" / "d").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    async with watching(tmp_path / "link") as it:
        (tmp_path / "real" / "d" / "x").touch()
        await it.at(b"d")


@pytest.mark.slow
async def test_f12_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """It kills watchfiles; everything is scanned, and the next change is hinted at again."""
    async with watching(tmp_path) as it:
        touch(bytes(tmp_path) + b"/caf\xe9")
        await it.everywhere()
        await it.until(lambda hint: hint.everything and it.watcher.state == "watching")
        (tmp_path / "x").touch()
        await it.at(b"")


@pytest.mark.slow
async def test_i02_an_unreadable_directory(public: Path) -> None:
    """It blinds watchfiles; all the others are watched, those made later too."""
    names = [f"d{number}" for number in range(10)]
    for name in names:
        (public / name).mkdir()
    (public / "d3").chmod(0)
    with unprivileged():
        context = watching(public)
        it = await context.__aenter__()
    try:
        for name in names:
            (public / name / "x").touch()
        await it.at(*(name.encode() for name in names if name != "d3"))
        (public / "new").mkdir()
        await it.at(b"", b"new")
        await it.everywhere()  # watches are set anew for the new directory
        (public / "new" / "x").touch()
        await it.at(b"new")
    finally:
        await context.__aexit__(None, None, None)


@pytest.mark.slow
async def test_j03_the_root_is_replaced(tmp_path: Path) -> None:
    """Another directory in the root's place is noticed, told, and watched."""
    root = tmp_path / "root"
    root.mkdir()
    async with watching(root) as it:
        root.rename(tmp_path / "old")
        await it.until(lambda _: it.watcher.state.startswith("polling: "))
        root.mkdir()
        await it.until(lambda hint: hint.everything and it.watcher.state == "watching")
        (root / "x").touch()
        await it.at(b"")


async def test_j02_a_root_that_is_missing(tmp_path: Path) -> None:
    """Without a root the watcher says why, hints at everything, and tries again."""
    stop = asyncio.Event()
    watcher = Watcher(bytes(tmp_path / "none"))
    assert watcher.state == "polling: not started"
    async with asyncio.timeout(TIMEOUT_S), contextlib.aclosing(watcher.hints(stop)) as hints:
        async for hint in hints:
            assert hint == Hint(everything=True)
            assert "No such file" in watcher.state
            (tmp_path / "none").mkdir(exist_ok=True)
            break
        async for _ in hints:
            break
    async with watching(tmp_path / "none") as it:
        assert it.watcher.state == "watching"


async def test_r05_a_thread_of_watchfiles_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever watchfiles raises, the watcher says so, hints at everything and starts again."""
    real = watch.watch
    lives = 0

    def dies_once(*paths: str, **settings: object) -> Iterator[object]:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise RuntimeError("error in underlying watcher")
        return real(*paths, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(watch, "watch", dies_once)
    async with watching(tmp_path) as it:
        assert lives == 2
        assert it.seen[0] == Hint(everything=True)


async def test_o09_no_thread_is_left(tmp_path: Path) -> None:
    """Stopping, closing or cancelling the hints ends their thread."""
    before = watch_threads()
    async with watching(tmp_path):
        assert len(watch_threads()) == len(before) + 1
    assert watch_threads() == before

    async def read() -> None:
        async with contextlib.aclosing(Watcher(bytes(tmp_path)).hints(asyncio.Event())) as it:
            async for _ in it:
                reading.set()

    reading = asyncio.Event()
    task = asyncio.create_task(read())
    await reading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watch_threads() == before


async def test_a_slow_reader_gets_one_hint(tmp_path: Path) -> None:
    """Hints that nobody read are joined."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with watching(tmp_path) as it, watching(tmp_path) as other:
        for name in ("a", "b"):
            (tmp_path / name / "x").touch()
            await other.at(name.encode())
        await it.at(b"a", b"b")
        assert len(it.seen) <= 3


def test_hints_are_bounded() -> None:
    """Very many directories are everything; joining keeps what either says."""
    one = Hint(frozenset({b"a"}), rules=True)
    assert one.joined(Hint(frozenset({b"b"}))) == Hint(frozenset({b"a", b"b"}), rules=True)
    assert one.joined(Hint(everything=True)) == Hint(everything=True, rules=True)
    many = Hint(frozenset(b"%d" % number for number in range(HINTED_DIRECTORIES)))
    assert many.joined(Hint()) == many
    assert many.joined(one) == Hint(everything=True, rules=True)


# ---------------------------------------------------------------------- in its own process


class Process:
    """A watcher in a process of its own."""

    def __init__(self, path: Path, *before: str) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.support.hints", str(path)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hints(self) -> Iterator[dict[str, object]]:
        """What it prints."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            yield json.loads(line)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()


@pytest.mark.slow
def test_i11_a_queue_that_overflows(tmp_path: Path) -> None:
    """Events were lost in silence while the process stood still: everything is hinted at."""
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    with Process(tmp_path) as watcher:
        hints = watcher.hints()
        assert next(hints)["state"] == "watching"
        watcher.process.send_signal(signal.SIGSTOP)
        for number in range(20_000):
            (tmp_path / str(number % 20) / str(number)).touch()
        watcher.process.send_signal(signal.SIGCONT)
        assert any(hint["everything"] for hint in hints)


@pytest.mark.slow
def test_i10_no_watches_left(tmp_path: Path) -> None:
    """Where the system gives no more watches the folder is polled, and it says why."""
    require("userns")
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    limit = 'echo 5 > /proc/sys/user/max_inotify_watches && exec "$@"'
    with Process(tmp_path, "unshare", "-U", "-r", "sh", "-c", limit, "sh") as watcher:
        hints = watcher.hints()
        for _ in range(2):
            hint = next(hints)
            assert hint["everything"]
            assert str(hint["state"]).startswith("polling: ")
            assert "limit" in str(hint["state"])
