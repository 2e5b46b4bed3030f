"""Runs a test's coroutine where its packets go nowhere: in a namespace with a loopback only.

    @on_loopback
    async def test_two_agents_meet() -> None: ...

The body runs in a process of its own (a thread cannot enter a namespace without root), with
asyncio's debug mode on and warnings as errors; what it raises fails the test with its words.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.support.netns import Lan
from tests.support.require import require

ROOT: Final = Path(__file__).parents[2]


def on_loopback(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of a coroutine function that runs alone in a namespace."""

    def runs_inside() -> None:
        require("netns", "multicast")
        with Lan("a") as lan:
            lan.detach("a")
            program = [sys.executable, "-W", "error", "-X", "dev", "-m", __name__]
            lan.run("a", [*program, test.__module__, test.__name__], cwd=ROOT)

    functools.update_wrapper(runs_inside, test)
    # pytest must see a plain function; the child process takes the coroutine from here
    runs_inside.inside = runs_inside.__wrapped__  # type: ignore[attr-defined]
    del runs_inside.__wrapped__  # type: ignore[attr-defined]
    return runs_inside


def main(module: str, name: str) -> None:
    """Run one test's body here and now."""
    test = getattr(importlib.import_module(module), name).inside
    asyncio.run(asyncio.wait_for(test(), 60), debug=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
