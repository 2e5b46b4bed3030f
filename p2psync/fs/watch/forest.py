"""The watched directories of all roots: one inotify descriptor, and which watch is where.

A directory is known by the watch of its parent and its name there, so a rename of a directory
moves all below it, and 50,000 directories take 10 MB. A directory that is watched already
keeps its watch wherever it goes, so whatever is seen under a new name is just planted again.

Setting watches blocks (10 us a directory, more when the disk has to be asked), so that is done
in threads, while the event loop reads; the lock is held for one watch at a time, so that no
event is read of a watch that has no place yet.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple

from p2psync.core import paths
from p2psync.core.ignore import OWN_DIRECTORY
from p2psync.fs import syscalls
from p2psync.fs.watch import inotify
from p2psync.fs.watch.inotify import Event
from p2psync.fs.watch.news import Place
from p2psync.fs.watch.settling import Key

PATIENCE_S: Final = 0.005
REMOVED_AT_ONCE: Final = 1_000  # each comes back as an event; the kernel keeps 16,384
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_LIMIT: Final = "the system's limit of watches is reached (fs.inotify.max_user_watches)"
_ELSEWHERE: Final = "the directory has been moved or replaced"


class Grown(NamedTuple):
    """What came of setting watches.

    fresh: those of the directories asked for that had no watch there. known: those that had
    one, and so all below them. lacking: why some have none now, in words; "": all that can be
    read have one.
    """

    fresh: set[Key]
    known: set[Key]
    lacking: str


class _Root(NamedTuple):
    path: bytes
    device: int
    inode: int


class Forest:
    """All watches of one inotify descriptor. Raises OSError when there is none to be had."""

    def __init__(self) -> None:
        self._inotify = inotify.Inotify()
        self.fd = self._inotify.fd
        self._lock = threading.Lock()
        self._at: dict[int, Key] = {}
        self._roots: dict[int, _Root] = {}
        self._closed = False

    def close(self) -> None:
        """End all watches; who is setting some gets an error."""
        with self._lock:
            self._closed = True
            self._inotify.close()

    # ------------------------------------------------------------------ events

    def read(self) -> list[Event] | None:
        """Return the next events; None: ask again later, a watch is being set.

        That takes 5 us, but on a filesystem that hangs the event loop must not hang with it.
        """
        if not self._lock.acquire(timeout=PATIENCE_S):
            return None
        try:
            events = self._inotify.read()
            for watch, mask, _, _ in events:
                if mask & inotify.IGNORED:
                    self._at.pop(watch, None)
        finally:
            self._lock.release()
        return events

    def place(self, watch: int, known: dict[int, Place | None]) -> Place | None:
        """Return where a watched directory is; None: nowhere any more.

        known: remembers answers for as long as nothing moves.
        """
        below: list[tuple[int, bytes]] = []
        at = watch
        while at not in known and at not in self._roots:
            key = self._at.get(at)
            if key is None or len(below) > len(self._at):  # in itself, by events that were lost
                known.update(dict.fromkeys((each for each, _ in below), None))
                return None
            below.append((at, key[1]))
            at = key[0]
        place = known[at] if at in known else Place(at, b"")
        for each, name in reversed(below):
            place = place and Place(place.root, paths.join(place.path, name))
            known[each] = place
        return place

    # ------------------------------------------------------------------ setting watches

    def plant(self, path: bytes) -> int:
        """Watch a root, nothing below it yet; return its watch. Raises OSError."""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            status = os.fstat(directory)
            with self._open():
                watch = self._inotify.add(directory, inotify.CHANGES | inotify.ITSELF)
                self._roots[watch] = _Root(path, status.st_dev, status.st_ino)
        finally:
            os.close(directory)
        return watch

    def grow(self, root: int, starts: Iterable[Key], over: Callable[[], bool]) -> Grown:
        """Watch directories of a root with all below them.

        starts: each by its parent's watch and its name; the root itself is (its watch, b"").
        What is no directory any more, or cannot be read, is passed over: its parent is
        watched. over: asked between directories, whether to leave off.

        Raises:
            OSError: the root is not there any more, or another directory.
        """
        grown = Grown(set(), set(), "")
        with contextlib.ExitStack() as stack:
            where = self._roots.get(root)
            if where is None:
                raise FileNotFoundError(errno.ENOENT, _ELSEWHERE)
            top = os.open(where.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, top)
            status = os.fstat(top)
            if (status.st_dev, status.st_ino) != where[1:]:
                raise FileNotFoundError(errno.ENOENT, _ELSEWHERE)
            try:
                for key in starts:
                    self._grow(top, root, key, grown, over)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                full = error.errno == errno.ENOSPC
                return grown._replace(lacking=_LIMIT if full else str(error.strerror))
        return grown

    def _grow(
        self, top: int, root: int, start: Key, grown: Grown, over: Callable[[], bool]
    ) -> None:
        """Watch one with all below; what is watched where it was is so with all below."""
        place = self.place(start[0], {})
        if place is None or place.root != root:
            return
        pending = [(start, paths.join(place.path, start[1]) if start[1] else place.path)]
        while pending and not over():
            key, path = pending.pop()
            added = self._watch(top, root, key, path)
            if added is None:
                continue
            watch, below, new = added
            if key == start:
                (grown.fresh if new else grown.known).add(key)
            if new or not start[1]:
                pending += [((watch, child), paths.join(path, child)) for child in below]

    def _watch(
        self, top: int, root: int, key: Key, path: bytes
    ) -> tuple[int, list[bytes], bool] | None:
        """Watch one directory, then list it; None: that cannot be done.

        Raises:
            OSError: the system has no room for one more watch or open directory.
        """
        if path == OWN_DIRECTORY:
            return None
        try:
            directory = syscalls.open_beneath(top, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            return None
        try:
            if os.fstat(directory).st_dev != self._roots[root].device:
                return None  # another filesystem is nobody's business
            watch, new = self._put(directory, root, key)
            with os.scandir(directory) as entries:
                return watch, _directories(entries), new
        except OSError as error:
            if error.errno in _NO_ROOM or self._closed:
                raise
            return None
        finally:
            os.close(directory)

    def _put(self, directory: int, root: int, key: Key) -> tuple[int, bool]:
        if not key[1]:
            return root, False
        with self._open():
            watch = self._inotify.add(directory, inotify.CHANGES)
            new = self._at.get(watch) != key
            self._at[watch] = key
        return watch, new

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            yield

    # ------------------------------------------------------------------ ending watches

    def below(self, tops: Collection[Key], roots: Collection[int] = ()) -> list[int]:
        """Return the watches of these directories, and of all below them and these roots."""
        with self._lock:
            at = dict(self._at)
        found = {watch: True for watch, key in at.items() if key in tops}
        found.update(dict.fromkeys(roots, True))
        for watch in at:
            chain: list[int] = []
            while watch not in found:
                found[watch] = False
                chain.append(watch)
                watch = at[watch][0] if watch in at else watch
            if found[watch]:
                found.update(dict.fromkeys(chain, True))
        return [watch for watch, below in found.items() if below]

    def uproot(self, root: int) -> list[int]:
        """Forget a root; return the watches that are to be removed."""
        self._roots.pop(root, None)
        return self.below((), (root,))

    def remove(self, watches: Iterable[int]) -> None:
        """End these watches."""
        with self._lock:
            for watch in watches:
                if not self._closed:
                    self._inotify.remove(watch)
                self._at.pop(watch, None)


def _directories(entries: Iterable[os.DirEntry[str]]) -> list[bytes]:
    return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]
