"""A watcher at work: what it hinted at so far, and a way to wait for more."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from p2psync.fs.watch import Hint, Watcher, Watching

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 20.0


class Reading:
    """Somebody who reads the hints of a watcher."""

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

    async def at(self, *paths: bytes) -> None:
        """Read hints until who follows them has looked at all these paths."""
        wanted = set(paths)

        def fits(hint: Hint) -> bool:
            wanted.difference_update([path for path in wanted if hint.covers(path)])
            return not wanted

        await self.until(fits)

    async def everywhere(self) -> None:
        """Read hints until one is for everything."""
        await self.until(lambda hint: hint.everything)

    async def quiet_until(self, touched: Path) -> list[Hint]:
        """Make one change more, in the root itself; return all hints up to the one for it."""
        self.seen = []
        touch(bytes(touched))
        await self.at(os.fsencode(touched.name))
        return self.seen


@contextlib.asynccontextmanager
async def reading(watching: Watching, path: Path) -> AsyncIterator[Reading]:
    """Watch a directory; the watches exist when the body begins."""
    stop = asyncio.Event()
    watcher = watching.watcher(bytes(path))
    hints = watcher.hints(stop)
    it = Reading(watcher, hints)
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


class Process:
    """A watcher in a process of its own; by: the module it is from."""

    def __init__(self, by: str, path: Path, *before: str) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "tests.support.hints", by, str(path)],
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
