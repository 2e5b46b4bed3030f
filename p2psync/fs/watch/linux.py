"""One inotify descriptor for all roots, read in the event loop; threads only set watches.

Promises, beyond those of a hint: a save is hinted at when its file is closed, within a
millisecond; nothing is lost silently: when the kernel's queue overflows, everything is hinted
at; what cannot be watched is polled, and `state` says why; ten roots that are left alone cost
nothing, as one does.

Whoever reads the hints of a root lets its watches be set, in portions of a thread: a new
directory is hinted at, whole, when it is watched with all below, so nothing is missed in it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final, ParamSpec, TypeVar

from p2psync.core import paths
from p2psync.fs.watch import inotify
from p2psync.fs.watch.forest import REMOVED_AT_ONCE, Forest, Grown
from p2psync.fs.watch.hint import Hint
from p2psync.fs.watch.news import News, Place, by_root
from p2psync.fs.watch.settling import Key, Settling

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

WATCHING: Final = "watching"
FIRST_RETRY_S: Final = 0.1
POLL_S: Final = 30.0
POLL_PER_S: Final = 100.0
"""Where not everything can be watched, so many seconds are between two looks at everything:
at least, and for each second that it took to set the watches there are."""

LIVED_S: Final = 60.0  # a watch that lived so long is set anew at once
READS_AT_ONCE: Final = 8
PAUSE_S: Final = 0.02
"""After so many reads in such a time comes a pause, and as long as it goes on after every
one: our own apply of 8,000 files/s must not wake the event loop as often."""

_LOST: Final = "more happened than the system keeps in mind"
_MOVED: Final = "the directory has been moved or removed"
_GONE: Final = inotify.ITSELF | inotify.UNMOUNT | inotify.IGNORED


class LinuxWatching:
    """The watchers of all roots of one event loop."""

    def __init__(self) -> None:
        self._forest: Forest | None = None
        self._settling = Settling()
        self._watchers: dict[int, LinuxWatcher] = {}  # by the watch of the root
        self._lost: set[int] = set()  # roots whose watches are to be ended
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._reads = 0
        self._reads_since = 0.0

    def watcher(self, root: bytes) -> LinuxWatcher:
        """Return a watcher of one root; no two roots are the same or in each other."""
        return LinuxWatcher(self, root)

    # ------------------------------------------------------------------ for the watchers

    def enter(self) -> None:
        """One watcher more is at work."""
        self._users += 1

    async def leave(self, root: int | None) -> None:
        """One watcher less is at work, that of this root if it has one."""
        self._users -= 1
        if not self._users:
            self._watchers.clear()
            self._close()
        elif root is not None:
            await self.uproot(root)

    async def plant(self, watcher: LinuxWatcher, over: Callable[[], bool]) -> tuple[int, str]:
        """Watch a root whole; return its watch, and why not all of it can be watched.

        Raises:
            OSError: it cannot be watched.
        """
        forest = self._forest or self._open()
        await self._clear()
        root = await finished(forest.plant, watcher.path)
        if forest is not self._forest:
            raise OSError(errno.ESTALE, _LOST)
        self._watchers[root] = watcher  # from now on it hears what happens
        try:
            grown = await finished(forest.grow, root, [(root, b"")], over)
            if self._watchers.get(root) is not watcher:
                raise OSError(errno.ESTALE, _LOST)
        except BaseException:
            if forest is self._forest:
                await self.uproot(root)
            raise
        return root, grown.lacking

    async def grow(self, root: int, news: News, over: Callable[[], bool]) -> Grown:
        """Watch the directories of a root that are new, and no more those that departed.

        Raises:
            OSError: the root is not there any more.
        """
        forest = self._forest
        if forest is None:
            raise OSError(errno.ESTALE, _LOST)
        if news.departed:
            await self._remove(forest, await finished(forest.below, news.departed))
        starts = {*news.made, *news.touched, *news.departed}
        return await finished(forest.grow, root, starts, over)

    async def uproot(self, root: int) -> None:
        """Watch a root no more, if it is watched."""
        self._watchers.pop(root, None)
        self._lost.add(root)
        await self._clear()

    async def _clear(self) -> None:
        """End the watches of roots that are watched no more."""
        while self._lost and self._forest is not None:
            forest = self._forest
            await self._remove(forest, await finished(forest.uproot, self._lost.pop()))

    async def _remove(self, forest: Forest, watches: list[int]) -> None:
        for begin in range(0, len(watches), REMOVED_AT_ONCE):
            await finished(forest.remove, watches[begin : begin + REMOVED_AT_ONCE])
            if forest is self._forest:
                self._read()  # before what comes of it fills the kernel's queue

    def path(self, key: Key) -> bytes | None:
        """Return the path of a name in a watched directory; None: it has none any more."""
        place = self._forest.place(key[0], {}) if self._forest else None
        return None if place is None else paths.join(place.path, key[1])

    # ------------------------------------------------------------------ events

    def _open(self) -> Forest:
        self._forest = Forest()
        self._settling = Settling()
        asyncio.get_running_loop().add_reader(self._forest.fd, self._read)
        return self._forest

    def _close(self) -> None:
        if self._forest is not None:
            asyncio.get_running_loop().remove_reader(self._forest.fd)
            self._forest.close()
            self._forest = None
        self._lost.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _read(self) -> None:
        forest = self._forest
        if forest is None:
            return
        events = forest.read()
        if events is None:
            self._rest(forest)
            return
        for watch, mask, _, _ in events:
            if mask & inotify.OVERFLOW:
                self._lose_all()
                return
            if mask & _GONE and watch in self._watchers:
                self._watchers.pop(watch).lose(_MOVED)
                self._lost.add(watch)
        now = time.monotonic()
        self._settling.take((event for event in events if event[3]), now)
        self._tell(forest, now)
        self._spare_the_loop(forest, now)

    def _lose_all(self) -> None:
        """Events were lost and nobody knows what is where: all is watched anew."""
        self._close()
        for watcher in self._watchers.values():
            watcher.lose(_LOST)
        self._watchers.clear()

    def _spare_the_loop(self, forest: Forest, now: float) -> None:
        if now - self._reads_since > PAUSE_S:
            self._reads, self._reads_since = 0, now
        self._reads += 1
        if self._reads == READS_AT_ONCE:
            self._rest(forest)

    def _rest(self, forest: Forest) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(forest.fd)
        loop.call_later(PAUSE_S, self._go_on, forest)

    def _go_on(self, forest: Forest) -> None:
        if forest is self._forest:
            self._reads, self._reads_since = READS_AT_ONCE - 1, time.monotonic()
            asyncio.get_running_loop().add_reader(forest.fd, self._read)

    def _ring(self) -> None:
        self._timer = None
        if self._forest is not None:
            self._tell(self._forest, time.monotonic())

    def _tell(self, forest: Forest, now: float) -> None:
        """Tell the watchers what is due, and come back when more is."""
        known: dict[int, Place | None] = {}
        news = by_root(self._settling.due(now), lambda watch: forest.place(watch, known))
        for root, each in news.items():
            if root in self._watchers:
                self._watchers[root].take(each)
        due = self._settling.next_due
        if self._timer is None and due < math.inf:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, due - now), self._ring)


class LinuxWatcher:
    """Watches one root for as long as somebody reads its hints.

    state: "watching", or "polling: " and why; then everything is hinted at now and then.
    """

    def __init__(self, watching: LinuxWatching, path: bytes) -> None:
        self.state = "polling: not started"
        self.path = path
        self._watching = watching
        self._root: int | None = None
        self._retry_s = FIRST_RETRY_S
        self._retry_at = 0.0
        self._planted_at = 0.0
        self._poll_s = POLL_S
        self._renew = False
        self._told = asyncio.Event()
        self._news = News()

    # ------------------------------------------------------------------ for the reader

    async def hints(self, stop: asyncio.Event) -> AsyncIterator[Hint]:
        """Yield hints until `stop` is set; the first, for everything, once the watch exists.

        Hints that are not read at once are joined, so a slow reader costs no memory.
        """
        waker = asyncio.create_task(stop.wait())
        waker.add_done_callback(lambda _: self._told.set())
        self._watching.enter()
        try:
            while not stop.is_set():
                await self._work(stop.is_set)
                hint, self._news.hint = self._news.hint, Hint()
                if hint:
                    yield hint
                else:
                    await self._wait()
        finally:
            waker.cancel()
            root, self._root = self._root, None
            await self._watching.leave(root)

    def renew(self) -> None:
        """The root was opened anew and may be another directory: watch what is there now."""
        self._renew = True
        self._told.set()

    async def _wait(self) -> None:
        well = self.state == WATCHING
        timeout = None if well else max(0.0, self._retry_at - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._told.wait()
        self._told.clear()

    async def _work(self, over: Callable[[], bool]) -> None:
        """Set the watches that are to be set now."""
        if self._renew:
            self._renew = False
            await self._uproot()
            self._news = News()
            await self._plant(over)
        elif self._news.moves_watches:
            await self._grow(over)
        elif self.state != WATCHING and time.monotonic() >= self._retry_at:
            await self._plant(over)

    async def _plant(self, over: Callable[[], bool]) -> None:
        began = time.monotonic()
        try:
            self._root, lacking = await self._watching.plant(self, over)
        except OSError as error:
            await self._uproot()
            self._fail(error.strerror or str(error))
            return
        self._planted_at = time.monotonic()
        self._poll_s = max(POLL_S, POLL_PER_S * (self._planted_at - began))
        self._news.hint = Hint(everything=True)
        if lacking:
            self._fail(lacking, self._poll_s)
        else:
            self.state = WATCHING

    async def _grow(self, over: Callable[[], bool]) -> None:
        news, self._news = self._news, News(self._news.hint)
        if self._root is None:
            return  # all will be watched anew
        try:
            grown = await self._watching.grow(self._root, news, over)
        except OSError as error:
            await self._uproot()
            self.lose(error.strerror or str(error))
            return
        if grown.lacking:
            self._fail(grown.lacking, self._poll_s)
        whole = filter(None, map(self._watching.path, {*news.made, *grown.fresh} - grown.known))
        before = filter(None, news.made.values())
        self._news.hint.join(Hint(set(before), trees=set(whole)))

    async def _uproot(self) -> None:
        root, self._root = self._root, None
        if root is not None:
            await self._watching.uproot(root)

    # ------------------------------------------------------------------ for the watching

    def take(self, news: News) -> None:
        """Something happened."""
        self._news.join(news)
        self._told.set()

    def lose(self, reason: str) -> None:
        """There is no watch of this root any more."""
        if time.monotonic() - self._planted_at > LIVED_S:
            self._retry_s = FIRST_RETRY_S
        self._root = None
        self._news = News()
        self._fail(reason)
        self._told.set()

    def _fail(self, reason: str, pause_s: float | None = None) -> None:
        """Not everything is watched: look everywhere, and try again after a pause.

        pause_s: None: longer and longer ones.
        """
        if pause_s is None:
            pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, POLL_S)
        state = f"polling: {reason[:200]}"
        if state != self.state or pause_s >= POLL_S:
            self._news.hint = Hint(everything=True)
        if state != self.state:
            logger.info("watching %r: %s", self.path, state)
        self.state = state
        self._retry_at = time.monotonic() + pause_s


async def finished(unit: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run what blocks in a thread; it is over when this is, cancelled or not."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, lambda: unit(*args, **kwargs))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.gather(future, return_exceptions=True)
        raise
