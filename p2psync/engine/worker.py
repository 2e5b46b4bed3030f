"""One thread per replica, in which everything that blocks is done, one unit after another.

Because scan, apply and exchange all run here, none of them ever sees the index or the disk in
the middle of another's step: that is the per-path lock of the design, taken by the folder.
Units are kept small (a pack of files, a few hundred paths), so that a fresh change waits for
milliseconds at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Worker:
    """Runs plain functions in one thread, in the order asked for."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self.units = 0
        """How many were asked for so far: while it stays the same, nothing goes on."""

    async def __call__(self, unit: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one unit and return what it returns; exceptions come back as they are.

        A unit that has begun is always finished: cancelling the caller only stops the waiting
        for it after it is done, so that nobody closes the index under a running unit.
        """
        loop = asyncio.get_running_loop()
        self.units += 1
        future = loop.run_in_executor(self._pool, lambda: unit(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.gather(future, return_exceptions=True)
            raise

    def close(self) -> None:
        """End the thread; units already asked for are finished first."""
        self._pool.shutdown(wait=True)
