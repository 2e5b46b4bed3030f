"""Hints where to look, from the system's file events; never more than hints.

Promises: a folder that is never hinted at is still scanned at start and at a slow pace, so a
lost hint costs time and nothing else; a hint names no path outside the root; a watcher that
cannot watch says so in its `state`, hints at everything now and then, and tries again.

On Linux that is the kernel's inotify (`linux`), elsewhere watchfiles (`elsewhere`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Protocol

from p2psync.fs.watch.hint import Hint

__all__ = ["Hint", "Watcher", "Watching", "system_watching"]


class Watcher(Protocol):
    """Watches one root for as long as somebody reads its hints."""

    @property
    def state(self) -> str:
        """Return "watching", or "polling: " and why."""
        ...

    def hints(self, stop: asyncio.Event) -> AsyncIterator[Hint]:
        """Yield hints until `stop` is set; the first, for everything, once the watch exists."""
        ...

    def renew(self) -> None:
        """The root was opened anew and may be another directory: watch what is there now."""
        ...


class Watching(Protocol):
    """The watchers of all roots of this process, which share what can be shared."""

    def watcher(self, root: bytes) -> Watcher:
        """Return a watcher of one root; no two roots are the same or in each other."""
        ...


def system_watching() -> Watching:
    """Return what watches best on this system."""
    if sys.platform == "linux":
        from p2psync.fs.watch.linux import LinuxWatching

        return LinuxWatching()
    from p2psync.fs.watch.elsewhere import WatchfilesWatching

    return WatchfilesWatching()
