"""Which changes are looked at now, and which are given a moment. Pure: time is an argument.

A file that was closed after writing, or moved in complete, is looked at now: that is a save.
What is made, written or gone, or renamed here, waits until it was left alone for a moment
(QUIET_S, but not for ever): it may be half a file, and a name that is gone is often back at
once, when an editor saves by renaming the old file away. Both names of a rename come together,
so a scan sees the new one before it misses the old.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from p2psync.fs.watch import inotify
from p2psync.fs.watch.inotify import Event

QUIET_S: Final = 0.05
LONGEST_S: Final = 1.0  # a log that is written all the time is looked at so often
GRAIN_S: Final = 0.01  # what is due so soon is due now
WAITING: Final = 8_192  # more than these wait as their directories

Key = tuple[int, bytes]
"""A name in a watched directory: the directory's watch and the name."""


@dataclass(slots=True)
class Settled:
    """What can be looked at now.

    names: of anything. made: directories that were made or came here, to be watched, then
    looked at whole; for each the name it had here before, if it had one. touched: directories
    that perhaps can be watched now. departed: directories that went where nobody sees them.
    crowded: the watches of directories in which very many names changed.
    """

    names: set[Key] = field(default_factory=set)
    made: dict[Key, Key | None] = field(default_factory=dict)
    touched: set[Key] = field(default_factory=set)
    departed: set[Key] = field(default_factory=set)
    crowded: set[int] = field(default_factory=set)


class Settling:
    """The changes nobody has looked at yet."""

    def __init__(self) -> None:
        self.next_due = math.inf
        """When to ask for what is due, at the latest; infinity: not before more events."""

        self._now = Settled()
        self._waiting: dict[Key, tuple[float, float]] = {}  # since when, until when
        self._made: dict[Key, float] = {}  # files, when they were made
        self._moved: dict[int, Key] = {}  # what left its name, by the cookie of the rename
        self._left: set[Key] = set()  # those of them that are directories

    def take(self, events: Iterable[Event], now: float) -> None:
        """Take in events, in their order; now: a monotonic clock in seconds."""
        ready, waiting = self._now.names, self._waiting
        for watch, mask, cookie, name in events:
            key = (watch, name)
            if mask & inotify.IS_DIRECTORY:
                self._take_directory(key, mask, cookie, now)
            elif mask & inotify.CLOSE_WRITE:
                ready.add(key)
                waiting.pop(key, None)
            elif mask & inotify.MOVED_TO:
                self._take_moved(key, cookie, now)
            else:
                if mask & inotify.CREATE:
                    self._made[key] = now
                elif mask & inotify.MOVED_FROM:
                    self._moved[cookie] = key
                self._wait(key, now)
        if len(waiting) > WAITING:
            self._now.crowded.update(watch for watch, _ in waiting)
            waiting.clear()

    def due(self, now: float) -> Settled:
        """Return, once, what is to be looked at now."""
        if self.next_due <= now + GRAIN_S:
            self._end_waiting(now + GRAIN_S)
        settled, self._now = self._now, Settled()
        return settled

    def _end_waiting(self, now: float) -> None:
        waiting = self._waiting
        for key in [key for key, (_, until) in waiting.items() if until <= now]:
            del waiting[key]
            self._now.names.add(key)
        self.next_due = min((until for _, until in waiting.values()), default=math.inf)
        self._now.departed = {key for key in self._left if key not in waiting}
        self._left -= self._now.departed
        self._moved = {cookie: key for cookie, key in self._moved.items() if key in waiting}
        self._made = {key: at for key, at in self._made.items() if at + QUIET_S > now}

    def _wait(self, key: Key, now: float) -> None:
        since = self._waiting[key][0] if key in self._waiting else now
        until = min(now + QUIET_S, since + LONGEST_S)
        self._waiting[key] = (since, until)
        self.next_due = min(self.next_due, until)

    def _take_moved(self, key: Key, cookie: int, now: float) -> None:
        """A file has this name now: at once if it came from elsewhere or was just made."""
        source = self._moved.pop(cookie, None)
        made = None if source is None else self._made.pop(source, None)
        if source is None or (made is not None and made + QUIET_S > now):
            self._now.names.add(key)
            self._waiting.pop(key, None)
            if source is not None:
                self._now.names.add(source)
                self._waiting.pop(source, None)
        else:
            self._wait(source, now)
            self._wait(key, now)

    def _take_directory(self, key: Key, mask: int, cookie: int, now: float) -> None:
        if mask & inotify.MOVED_TO:
            source = self._moved.pop(cookie, None)
            self._now.made[key] = source
            if source is not None:
                self._left.discard(source)
                self._waiting.pop(source, None)
        elif mask & inotify.CREATE:
            self._now.made.setdefault(key, None)
        elif mask & inotify.ATTRIB:
            self._now.touched.add(key)
        else:
            if mask & inotify.MOVED_FROM:
                self._moved[cookie] = key
                self._left.add(key)
            self._wait(key, now)
