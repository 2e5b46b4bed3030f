"""What was displaced or deleted, kept for a while under `.p2psync/history`.

    history/2026-11-23/docs/report~143201-3f9a.txt

The tree is that of the folder, one per day (UTC); a name says when it went and keeps its
ending, so that a person finds and opens it. Files and links are kept, and only by renaming
or copying: nothing here shares its bytes with a live file (fault H09).
"""

from __future__ import annotations

import calendar
import contextlib
import datetime
import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from typing import Final

from p2psync.fs import syscalls
from p2psync.protocol import limits

DAY_NS: Final = 86_400 * 10**9
_TRIES: Final = 8
_ENDING_BYTES: Final = 16
_WRITTEN_NS: Final = 1_767_225_600 * 10**9  # 2026: no clock that shows less is right

Rename = Callable[[int, bytes, int, bytes], None]
"""Renames (from directory, name, to directory, name) only if nothing has the target name."""


class History:
    """The open history of one root."""

    def __init__(self, fd: int, owner: tuple[int, int] | None) -> None:
        self.fd = fd
        self._owner = owner
        self.unsynced: set[bytes] = set()
        """Directories here whose names are not known to be durable."""

    def keep(self, directory: int, name: bytes, path: bytes, rename: Rename) -> bytes:
        """Move an object that stood at `path` of the folder into the history.

        Args:
            directory: where it is now, under `name`.
            name: its name there.
            path: where it stood; what its name here is made of.
            rename: how to rename without replacing.

        Returns:
            Its name: a path below the history.

        Raises:
            OSError: it is still where it was.
        """
        day, moment = _stamp(syscalls.now_ns())
        parent, base = os.path.split(path)
        try:
            return self._keep(
                directory, name, (os.path.join(day, parent), base, moment), rename
            )
        except OSError as error:
            # the tree is a convenience; an odd name or depth must not keep anything out
            if error.errno not in (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
                raise
        return self._keep(directory, name, (day, b"", moment), rename)

    def _keep(
        self, directory: int, name: bytes, place: tuple[bytes, bytes, bytes], rename: Rename
    ) -> bytes:
        parent, base, moment = place
        with self._directory(parent.rstrip(b"/")) as fd:
            for left in reversed(range(_TRIES)):
                kept = kept_name(base, moment + b"-" + secrets.token_hex(2).encode())
                try:
                    rename(directory, name, fd, kept)
                except FileExistsError:
                    if not left:
                        raise
                else:
                    break
        self.unsynced.add(parent.rstrip(b"/"))
        return os.path.join(parent, kept)

    @contextlib.contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            fd = syscalls.open_beneath(self.fd, path, flags)
        except FileNotFoundError:
            self._make(path)
            fd = syscalls.open_beneath(self.fd, path, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    def _make(self, path: bytes) -> None:
        """Make a directory and those above it; iterative, for a path may be 1,000 deep."""
        parent = b""
        for component in path.split(b"/"):
            fd = syscalls.open_beneath(self.fd, parent, os.O_PATH | os.O_DIRECTORY)
            try:
                with contextlib.suppress(FileExistsError):
                    syscalls.make_directory(fd, component, 0o700)
                    if self._owner is not None:
                        syscalls.set_owner(fd, component, self._owner)
                    self.unsynced.add(parent)
            finally:
                os.close(fd)
            parent = os.path.join(parent, component)

    def open(self, name: bytes) -> int:
        """Open what has been kept, for reading; OSError when it is not there (any more)."""
        return syscalls.open_beneath(self.fd, name, os.O_RDONLY)

    def sync(self) -> None:
        """Make the names of everything kept durable; raises OSError."""
        for path in sorted(self.unsynced):
            with contextlib.suppress(FileNotFoundError):
                fd = syscalls.open_beneath(self.fd, path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    syscalls.fsync(fd)
                finally:
                    os.close(fd)
            self.unsynced.discard(path)

    def prune(self, older_than_ns: int) -> list[bytes]:
        """Remove the days that ended before a moment, in ns since 1970.

        A day from before the program was written was named under a wrong clock (a machine
        without one boots into 1970, fault K02): it is renamed to today and stays that long.

        Returns:
            The names of what was removed.

        Raises:
            OSError: something could not be removed; the next call goes on from there.
        """
        removed: list[bytes] = []
        for name in sorted(os.fsencode(name) for name in os.listdir(self.fd)):
            ended = _end_of(name)
            if ended is None:
                continue
            if ended < _WRITTEN_NS:
                self._redate(name)
            elif ended <= older_than_ns:
                removed += remove_tree(self.fd, name)
        return removed

    def _redate(self, day: bytes) -> None:
        today, moment = _stamp(syscalls.now_ns())
        if today > day:
            with contextlib.suppress(FileExistsError, OSError):
                syscalls.rename_new(self.fd, day, self.fd, today + b"~" + moment)


def kept_name(base: bytes, mark: bytes) -> bytes:
    """Return a name for the history: stem~mark.ending, never longer than a name may be.

    What does not fit is cut from the stem, never inside a UTF-8 character.
    """
    stem, ending = os.path.splitext(base)
    if len(ending) > _ENDING_BYTES:
        stem, ending = base, b""
    room = limits.NAME_BYTES - len(mark) - len(ending) - 1
    if len(stem) > room:
        cut = stem[:room]
        try:
            stem.decode()
        except UnicodeDecodeError:
            stem = cut
        else:
            stem = cut.decode(errors="ignore").encode()
    return stem + b"~" + mark + ending


def remove_tree(directory: int, name: bytes) -> list[bytes]:
    """Remove a directory of ours and all below; return the paths of what was no directory.

    Iterative and holding one directory open at a time: a tree may be 1,000 deep. Raises
    OSError.
    """
    removed: list[bytes] = []
    directories = [name]
    for path in directories:
        fd = syscalls.open_beneath(directory, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for entry in map(os.fsencode, os.listdir(fd)):
                below = os.path.join(path, entry)
                if stat.S_ISDIR(os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mode):
                    directories.append(below)
                else:
                    syscalls.unlink(fd, entry)
                    removed.append(below)
        finally:
            os.close(fd)
    for path in reversed(directories):
        parent, last = os.path.split(path)
        fd = syscalls.open_beneath(directory, parent, os.O_PATH | os.O_DIRECTORY)
        try:
            syscalls.remove_directory(fd, last)
        finally:
            os.close(fd)
    return removed


def _stamp(now_ns: int) -> tuple[bytes, bytes]:
    """Return the day (2026-11-23) and the moment of the day (143201) of a time, in UTC."""
    when = time.gmtime(now_ns // 10**9)
    return time.strftime("%Y-%m-%d", when).encode(), time.strftime("%H%M%S", when).encode()


def _end_of(day: bytes) -> int | None:
    """Return when a day of the history ended, in ns since 1970; None: not a day's name."""
    try:
        date = datetime.date.fromisoformat(day.partition(b"~")[0].decode())
    except ValueError:
        return None
    return calendar.timegm(date.timetuple()) * 10**9 + DAY_NS
