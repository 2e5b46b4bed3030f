"""A replica's root, opened: everything the engine may do to a folder on this disk.

    create, open, check     the marker and whether this is still the same root (faults J01-J07)
    prepare_…, partial      complete new contents in `.p2psync/staging`   (`fs.staging`)
    put, move, remove, …    show them, looking at what is displaced       (`fs.place`)
    move_directory          rename one with all that stands in it         (`fs.relocate`)
    sync, sync_…            make it durable, many at once
    recover, prune_history  after a crash; after a while

Synchronous; any number of threads may use one root as long as no two act on one path. A place
that cannot be made as wanted is a value; OSError comes only out of looks and syncs.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

from p2psync.errors import RootTrouble as RootTrouble
from p2psync.fs import marker, syscalls
from p2psync.fs.ground import Surprised as Surprised
from p2psync.fs.ground import look_at
from p2psync.fs.ground import problem_of as problem_of
from p2psync.fs.history import remove_tree
from p2psync.fs.marker import RootIdentity as RootIdentity
from p2psync.fs.partial import Partial
from p2psync.fs.place import Done as Done
from p2psync.fs.relocate import Relocating
from p2psync.fs.staging import NEW, OLD, PART, RECORD, Prepared, number_of
from p2psync.fs.traits import probe

_STAGING = b"staging"
_HISTORY = b"history"
_PARTIAL = re.compile(b"[0-9a-f]{64}" + re.escape(PART))


class Recovered(NamedTuple):
    """Something of a person's that a crash had left in staging, and where it is now.

    path: it is back at this path of the folder. history: it is kept under this name there.
    """

    path: bytes | None
    history: bytes | None


class RootFds(NamedTuple):
    """The open directories of a root."""

    root: int
    control: int
    staging: int
    history: int


class Root(Relocating):
    """The opened root of one replica; made by `create` or `open`, to be closed."""

    identity: RootIdentity

    def __init__(self, path: bytes, fds: RootFds) -> None:
        """Take over the descriptors; raises OSError."""
        super().__init__(path, fds.root, fds.staging, fds.history)
        self._control = fds.control
        self.traits = probe(self.staging)
        self.identity = marker.identify(self.fd, marker.read(self._control) or b"")

    @classmethod
    def create(cls, path: bytes, replica: bytes, folder: bytes) -> Self:
        """Make a directory the root of a replica and open it; one that is so already will do.

        Raises:
            RootTrouble: it cannot be written, or is the root of another replica.
        """
        fd = marker.open_root(path)
        try:
            with contextlib.suppress(FileExistsError):
                syscalls.make_directory(fd, marker.CONTROL, 0o700)
            control = syscalls.open_beneath(fd, marker.CONTROL, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if marker.read(control) is None:
                    marker.write(control, marker.text_of(replica, folder))
                    syscalls.fsync(fd)
            finally:
                os.close(control)
        except OSError as error:
            raise marker.unwritable(path, error) from error
        finally:
            os.close(fd)
        root = cls.open(path, replica, folder)
        root.own(root.fd, marker.CONTROL)
        for name in (_STAGING, _HISTORY, marker.NAME):
            root.own(root._control, name)
        return root

    @classmethod
    def open(cls, path: bytes, replica: bytes, folder: bytes) -> Self:
        """Open the root of a replica; a marker that is missing is never made again.

        Raises:
            RootTrouble: there is no such root; the text says why.
        """
        opened: list[int] = [marker.open_root(path)]
        try:
            opened.append(marker.open_control(path, opened[0]))
            marker.demand(path, marker.read(opened[1]), replica, folder)
            _make_private(opened[1])
            opened.append(_directory(opened[1], _STAGING))
            opened.append(_directory(opened[1], _HISTORY))
            return cls(path, RootFds(*opened))
        except OSError as error:
            _close(*opened)
            raise marker.unreadable(path, error) from error
        except RootTrouble:
            _close(*opened)
            raise

    def check(self) -> None:
        """Look whether this is still the same root, reached by the same path.

        Raises:
            RootTrouble: it is not, or nobody can say; nothing missing in it is a delete.
        """
        fd = marker.open_root(self.path)
        try:
            control = marker.open_control(self.path, fd)
            try:
                found = marker.identify(fd, marker.read(control) or b"")
                missing = os.fstat(self.staging).st_nlink == 0
            finally:
                os.close(control)
        except OSError as error:
            raise marker.unreadable(self.path, error) from error
        finally:
            os.close(fd)
        if found.marker == b"":
            raise marker.lost(self.path)
        if found != self.identity or missing:
            raise marker.replaced(self.path)

    def close(self) -> None:
        """Close it when nobody uses it; nothing may be asked of it afterwards."""
        self.wait_unused()
        _close(self.history.fd, self.staging, self._control, self.fd)

    def retire(self) -> None:
        """Take the marker away: this is no longer a root, the history stays. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            syscalls.unlink(self._control, marker.NAME)
        syscalls.fsync(self._control)

    def purge(self) -> None:
        """Remove `.p2psync` with the history and all; close it afterwards. Raises OSError."""
        self.retire()
        remove_tree(self.fd, marker.CONTROL)

    # ------------------------------------------------------------------ large files

    def partial(self, content: bytes, size: int) -> Partial:
        """Open a large file that is to be assembled, with what an earlier start left of it.

        Raises:
            OSError: it cannot be read, or is open already.
        """
        return Partial(self, content, size)

    def partials(self) -> list[bytes]:
        """Return the contents of which something has been assembled. Raises OSError."""
        return [
            bytes.fromhex(name.removesuffix(PART).decode())
            for name in self._staged()
            if _PARTIAL.fullmatch(name)
        ]

    # ------------------------------------------------------------------ durability

    def sync(self) -> None:
        """Make everything done so far durable, in one go (group commit).

        Raises:
            OSError: it may not be. Whatever was staged before is worthless, for the kernel
                reports an error once and then calls the lost bytes written (fault I13): it is
                not put in place any more, and partials are removed.
        """
        try:
            syscalls.sync_filesystem(self.fd)
        except OSError:
            self._spoil()
            raise
        self.history.unsynced.clear()

    def sync_file(self, prepared: Prepared) -> None:
        """Make one thing that was prepared durable: the fast path for a single small file.

        Raises:
            OSError: it may not be; as `sync`.
        """
        flags = os.O_RDONLY if stat.S_ISREG(prepared.signature.mode) else os.O_PATH
        if flags == os.O_PATH:  # a link or directory is its name
            return self._syncing(self.sync_staging)
        file = syscalls.open_beneath(self.staging, prepared.name, flags)
        try:
            return self._syncing(functools.partial(syscalls.fsync, file))
        finally:
            os.close(file)

    def sync_directories(self, directories: Iterable[bytes]) -> None:
        """Make what was done to names in these directories durable, and in the history.

        A directory that is gone is left out.

        Raises:
            OSError: it may not be; as `sync`.
        """
        for path in sorted(set(directories)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fd = self.open_directory(path)
                try:
                    self._syncing(functools.partial(syscalls.fsync, fd))
                finally:
                    os.close(fd)
        self._syncing(self.history.sync)
        self._syncing(self.sync_staging)

    def _syncing(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError:
            self._spoil()
            raise

    def _spoil(self) -> None:
        self.epoch += 1
        for name in self._staged():
            if _PARTIAL.fullmatch(name):
                with contextlib.suppress(OSError):
                    syscalls.unlink(self.staging, name)

    # ------------------------------------------------------------------ after a crash, a while

    def recover(self) -> list[Recovered]:
        """Tidy up what a crash left in staging; call it before anything else is done.

        What may be a person's goes back where it belongs if nothing is there and that is
        known, else into the history. What was ours is removed; partials stay. It may itself
        be interrupted anywhere and be called again (fault L06).

        Raises:
            OSError: the disk is in trouble; nothing is lost.
        """
        names = self._staged()
        recovered = [self._recover_old(name) for name in names if name.startswith(OLD)]
        for name in names:
            if name.startswith(RECORD):
                syscalls.unlink(self.staging, name)
            elif name.startswith(NEW):
                self._remove_new(name)
        return [one for one in recovered if one is not None]

    def prune_history(self, older_than_ns: int) -> list[bytes]:
        """Remove what was displaced before a moment, by whole days; see `History.prune`."""
        return self.history.prune(older_than_ns)

    def _recover_old(self, name: bytes) -> Recovered | None:
        path = self._recorded(name)
        if path is not None and self._bring_back(name, path):
            return Recovered(path, None)
        known = path or name.removeprefix(OLD).partition(b"-")[2] or b"recovered"
        kept = self._put_away(name, known)
        return None if kept is None else Recovered(None, kept)

    def _recorded(self, name: bytes) -> bytes | None:
        """Return where an object belongs, if its record is about this very object."""
        try:
            file = syscalls.open_beneath(self.staging, RECORD + number_of(name), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            inode, _, path = os.read(file, 1 << 20).partition(b" ")
        finally:
            os.close(file)
        found = look_at(self.staging, name)
        return path if found and path and inode == b"%d" % found.inode else None

    def _bring_back(self, name: bytes, path: bytes) -> bool:
        try:
            with self.at(path) as at:
                self.rename_new(self.staging, name, at.fd, at.name)
        except OSError:
            return False
        return True

    def _remove_new(self, name: bytes) -> None:
        found = look_at(self.staging, name)
        if found is None:
            return
        if stat.S_ISDIR(found.mode):
            syscalls.remove_directory(self.staging, name)
        else:
            syscalls.unlink(self.staging, name)

    def _staged(self) -> list[bytes]:
        return sorted(map(os.fsencode, os.listdir(self.staging)))


def _make_private(control: int) -> None:
    """Shut others out of `.p2psync`, which a backup or a copy may have opened to them."""
    if os.fstat(control).st_mode & 0o077:
        with contextlib.suppress(OSError):
            syscalls.set_mode(control, 0o700)


def _directory(control: int, name: bytes) -> int:
    with contextlib.suppress(FileExistsError):
        syscalls.make_directory(control, name, 0o700)
    return syscalls.open_beneath(control, name, os.O_RDONLY | os.O_DIRECTORY)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
