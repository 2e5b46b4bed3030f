"""fs.watch.elsewhere: what kills watchfiles, or is missed by it, does not harm us."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.fs.watch import Hint, elsewhere
from p2psync.fs.watch.elsewhere import WatchfilesWatching
from tests.support.watching import reading


def watch_threads() -> list[threading.Thread]:
    """Threads of watchers that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "watch"]


@pytest.mark.slow
async def test_nested_new_directories_are_looked_at_twice(tmp_path: Path) -> None:
    """A new directory is hinted at again when its watch must exist."""
    async with reading(WatchfilesWatching(), tmp_path) as it:
        for number in range(200):
            (tmp_path / str(number) / "a" / "b" / "c").mkdir(parents=True)
            (tmp_path / str(number) / "a" / "b" / "c" / "x").touch()
        deepest = [f"{number}/a/b/c".encode() for number in range(200)]
        named: Counter[bytes] = Counter()

        def twice(hint: Hint) -> bool:
            named.update(hint.directories)
            return all(named[path] >= 2 for path in deepest)

        await it.until(twice)


async def test_r05_a_thread_of_watchfiles_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever watchfiles raises, the watcher says so, hints at everything and starts again."""
    real = elsewhere.watch
    lives = 0

    def dies_once(*paths: str, **settings: object) -> Iterator[object]:
        nonlocal lives
        lives += 1
        if lives == 1:
            raise RuntimeError("error in underlying watcher")
        return real(*paths, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(elsewhere, "watch", dies_once)
    async with reading(WatchfilesWatching(), tmp_path) as it:
        assert lives == 2
        assert it.seen[0] == Hint(everything=True)


async def test_o09_no_thread_is_left(tmp_path: Path) -> None:
    """Stopping, closing or cancelling the hints ends their thread."""
    before = watch_threads()
    watching = WatchfilesWatching()
    async with reading(watching, tmp_path):
        assert len(watch_threads()) == len(before) + 1
    assert watch_threads() == before

    async def read() -> None:
        hints = watching.watcher(bytes(tmp_path)).hints(asyncio.Event())
        async with contextlib.aclosing(hints) as it:
            async for _ in it:
                started.set()

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watch_threads() == before
