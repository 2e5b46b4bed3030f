"""Watching by watchfiles, where there is no inotify: fast, and not to be relied on.

It says nothing when the kernel's queue overflows, dies of a name that is not UTF-8, refuses to
start over one unreadable directory, follows links out of the root, misses what is made in a
directory before that is watched, and names no more than directories worth a look. So: what
comes through a link is traced back to where it really is, or dropped; a new directory is
looked at with all below it, and once more when its watch must exist; very many changes at
once, or a watcher that died, mean look everywhere.

watchfiles runs in a thread for each root and polls: 0.25-0.4 % of a core while nothing happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from watchfiles import watch

from p2psync.core.ignore import OWN_DIRECTORY
from p2psync.fs.scan import RULES_NAME
from p2psync.fs.watch.hint import HINTED_DIRECTORIES, Hint

logger = logging.getLogger(__name__)

DEBOUNCE_MS: Final = 50  # measured: 12 ms from a write to its event
STEP_MS: Final = 10
IDLE_MS: Final = 1_000
SECOND_LOOK_S: Final = 1.0
STORM_PATHS: Final = 4_096  # the kernel's queue holds 16,384 events, about three for a path
BURST_GAP_S: Final = 0.5
FIRST_RETRY_S: Final = 0.1
LAST_RETRY_S: Final = 30.0
LIVED_S: Final = 60.0  # a watcher that lived so long is restarted at once


class WatchfilesWatching:
    """Watchers that have nothing in common."""

    def watcher(self, root: bytes) -> WatchfilesWatcher:
        """Return a watcher of one root."""
        return WatchfilesWatcher(root)


class WatchfilesWatcher:
    """Watches one root for as long as somebody reads its hints.

    state: "watching", or "polling: " and why; then the whole folder is hinted at every 30 s.
    """

    def __init__(self, path: bytes) -> None:
        self.state = "polling: not started"
        self._path = path
        self._renew = threading.Event()

    def renew(self) -> None:
        """The root was opened anew and may be another directory: watch what is there now."""
        self._renew.set()

    async def hints(self, stop: asyncio.Event) -> AsyncIterator[Hint]:
        """Yield hints until `stop` is set; the first, for everything, once the watch exists.

        Hints that are not read at once are joined, so a slow reader costs no memory.
        """
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        waiting = Hint()
        closed = threading.Event()

        def take(hint: Hint) -> None:
            waiting.join(hint)
            told.set()

        def tell(hint: Hint) -> None:
            # RuntimeError: the loop was closed over our heads, and nobody reads any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(take, hint)

        thread = threading.Thread(
            target=self._keep_watching,
            args=(tell, lambda: closed.is_set() or stop.is_set()),
            name="watch",
            daemon=True,
        )
        thread.start()
        try:
            while not stop.is_set():
                await told.wait()
                told.clear()
                hint, waiting = waiting, Hint()
                if hint:
                    yield hint
        finally:
            closed.set()
            await asyncio.to_thread(thread.join)

    def _keep_watching(self, tell: Callable[[Hint], None], over: Callable[[], bool]) -> None:
        """Watch until over; whatever ends a watch, hint at everything and start another."""

        def started() -> None:
            self.state = "watching"
            tell(Hint(everything=True))

        def ended() -> bool:
            return over() or self._renew.is_set()

        one_by_one = False
        retry_s = FIRST_RETRY_S
        while not over():
            began = time.monotonic()
            self._renew.clear()
            try:
                _Watch(self._path, tell, ended, started).run(one_by_one)
            except PermissionError as error:
                self._died(error, tell)
                one_by_one = True
            except Exception as error:  # whatever the library raises, we only lose hints
                self._died(error, tell)
            if time.monotonic() - began > LIVED_S:
                retry_s = FIRST_RETRY_S
            until = time.monotonic() + retry_s
            while not over() and time.monotonic() < until:
                time.sleep(STEP_MS / 1_000)
            retry_s = min(2 * retry_s, LAST_RETRY_S)
        tell(Hint())  # wakes the reader, who sees that it is over

    def _died(self, error: Exception, tell: Callable[[Hint], None]) -> None:
        state = f"polling: {str(error)[:200]}"
        if state != self.state:
            logger.info("watching %r: %s", self._path, state)
        self.state = state
        tell(Hint(everything=True))


class _Watch:
    """One life of a watchfiles watcher, in its thread; ends with an exception or when over."""

    def __init__(
        self,
        path: bytes,
        tell: Callable[[Hint], None],
        over: Callable[[], bool],
        started: Callable[[], None],
    ) -> None:
        self._root = os.path.realpath(path)
        self._identity = _identity(self._root)
        self._tell = tell
        self._over = over
        self._started: Callable[[], None] | None = started
        self._again: dict[bytes, float] = {}  # new directories, when to look once more
        self._burst = 0  # paths in batches that followed each other closely
        self._last_batch = 0.0

    def is_set(self) -> bool:
        """Say whether to stop; watchfiles asks at every step, first when its watches are on."""
        if self._started:
            self._started()
            self._started = None
        return self._over()

    def run(self, one_by_one: bool) -> None:
        """Watch; with one_by_one each readable directory by itself, until there is a new one.

        Raises:
            Exception: of any kind, when the watch cannot be set up or does not work any more.
        """
        paths = _directories(self._root, self._root) if one_by_one else [self._root]
        batches = watch(
            *map(os.fsdecode, paths),
            watch_filter=None,
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=self,
            rust_timeout=IDLE_MS,
            yield_on_timeout=True,
            debug=False,
            raise_interrupt=False,
            recursive=not one_by_one,
            ignore_permission_denied=False,
        )
        for changes in batches:
            hint = self._hint({os.fsencode(path) for _, path in changes})
            if hint:
                self._tell(hint)
            self._look_again(len(changes))
            if one_by_one and self._again:
                return

    def _hint(self, changed: set[bytes]) -> Hint:
        """Turn the paths of events into directories of the root to be looked at."""
        if self._root in changed and _identity(self._root) != self._identity:
            raise FileNotFoundError("the root is another directory now")
        paths: set[bytes] = set()
        rules = False
        inside: dict[bytes, bytes | None] = {}
        for path in changed - {self._root}:
            parent, name = os.path.split(path)
            if parent not in inside:
                inside[parent] = self._inside(parent)
            directory = inside[parent]
            if directory is None:
                continue
            child = os.path.join(directory, name)
            if child == OWN_DIRECTORY or child.startswith(OWN_DIRECTORY + b"/"):
                continue
            paths.add(directory)
            rules = rules or child == RULES_NAME
            if _is_directory(os.path.join(self._root, child)):
                self._again[child] = time.monotonic() + SECOND_LOOK_S
                if len(paths) <= HINTED_DIRECTORIES:  # else it is everything anyway
                    paths.update(self._below(child))
        return Hint(directories=paths, rules=rules)

    def _look_again(self, paths: int) -> None:
        """Hint again where a hint may have been missed: in new directories, and after storms.

        paths: how many the last batch had; 0 when there was none for a while.
        """
        now = time.monotonic()
        for directory in [path for path, due in self._again.items() if due <= now]:
            del self._again[directory]
            self._tell(Hint(directories=set(self._below(directory))))
        if now - self._last_batch > BURST_GAP_S:
            if self._burst >= STORM_PATHS:
                self._tell(Hint(everything=True))
            self._burst = 0
        if paths:
            self._burst += paths
            self._last_batch = now

    def _inside(self, directory: bytes) -> bytes | None:
        """Return where a directory really is, relative to the root; None: elsewhere.

        The kernel knows one watch per directory, so what happens in it may be reported under
        the name of any link to it. Of one that is gone, the nearest that is left is returned.
        """
        real = os.path.realpath(directory)
        while real != self._root and real != b"/" and not _is_directory(real):
            real = os.path.dirname(real)
        if real == self._root:
            return b""
        prefix = self._root + b"/"
        return real.removeprefix(prefix) if real.startswith(prefix) else None

    def _below(self, directory: bytes) -> Iterator[bytes]:
        """Yield a directory and those below it, relative to the root, not endlessly many."""
        start = os.path.join(self._root, directory)
        listed = itertools.islice(_directories(self._root, start), HINTED_DIRECTORIES + 1)
        return (path[len(self._root) + 1 :] for path in listed)


def _identity(path: bytes) -> tuple[int, int]:
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _directories(root: bytes, start: bytes) -> Iterator[bytes]:
    """Yield a directory and all below it that can be listed; never ours, nor through links."""
    pending = [start]
    while pending:
        directory = pending.pop()
        if directory == os.path.join(root, OWN_DIRECTORY):
            continue
        try:
            with os.scandir(directory) as entries:
                below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        yield directory
        pending += below
