"""The ground all effects stand on: an open root, and looking at what is beneath it.

Promise: confinement. A path becomes an open directory and one name before anything is asked
or done, without crossing a link; whoever swaps a directory for a link meanwhile gains nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

from p2psync.core.entry import Kind
from p2psync.core.index import Signature
from p2psync.core.problem import Problem, Reason
from p2psync.fs import syscalls
from p2psync.fs.traits import Traits

ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""How a look says that nothing is at a path: it, or a directory above it, is missing, or what
is above it is not a directory."""

_STORED: Final = 2**63 - 1  # the widest number an index keeps

_REASONS: Final = {
    errno.ENOSPC: Reason.NO_SPACE,
    errno.EDQUOT: Reason.NO_SPACE,
    errno.EROFS: Reason.READ_ONLY,
    errno.ENAMETOOLONG: Reason.NAME_TOO_LONG,
    errno.EILSEQ: Reason.NOT_REPRESENTABLE,
    errno.EINVAL: Reason.NOT_REPRESENTABLE,
    errno.EFBIG: Reason.TOO_LARGE,
    errno.EOPNOTSUPP: Reason.NOT_REPRESENTABLE,
    errno.EACCES: Reason.UNWRITABLE,
    errno.EPERM: Reason.UNWRITABLE,
    errno.EBUSY: Reason.UNWRITABLE,
    errno.ETXTBSY: Reason.UNWRITABLE,
    errno.EXDEV: Reason.MOUNTED,
    errno.ENOTEMPTY: Reason.NOT_EMPTY,
    errno.EMFILE: Reason.OVERLOADED,
    errno.ENFILE: Reason.OVERLOADED,
    errno.ENOMEM: Reason.OVERLOADED,
}

_DETAILS: Final = {
    errno.EDQUOT: "the owner's quota is used up",
    errno.EXDEV: "it is not on the filesystem of the folder",
    errno.EBUSY: "it is in use by the system, for example a mount point",
    errno.EPERM: "the system does not permit it; the object may be marked immutable",
    errno.EFBIG: "the file is larger than this filesystem takes",
}


def problem_of(path: bytes, error: OSError, *, reading: bool = False) -> Problem:
    """Return what an error of the system means for this path; the detail is for a person."""
    number = error.errno or 0
    reason = _REASONS.get(number, Reason.IO_ERROR)
    if reading and reason is Reason.UNWRITABLE:
        reason = Reason.UNREADABLE
    detail = "" if number == errno.ENOSPC else error.strerror or str(error)  # said already
    return Problem(path, reason, _DETAILS.get(number) or detail)


def signature_of(status: os.stat_result) -> Signature:
    """Return the signature of what was looked at, in numbers that an index can keep.

    A filesystem may number its inodes or date its files beyond 63 bits (fault K07).
    """
    mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns
    if not (-_STORED <= mtime_ns <= _STORED and -_STORED <= ctime_ns <= _STORED):
        mtime_ns = max(-_STORED, min(mtime_ns, _STORED))
        ctime_ns = max(-_STORED, min(ctime_ns, _STORED))
    return Signature(
        status.st_dev & _STORED,
        status.st_ino & _STORED,
        status.st_size,
        mtime_ns,
        ctime_ns,
        status.st_mode,
    )


def look_at(directory: int, name: bytes) -> Signature | None:
    """Look at one name of an open directory; None: nothing is there. Raises OSError."""
    try:
        return signature_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return None


def kind_of(mode: int) -> Kind | None:
    """Return what kind of object has this mode; None: none that is synced."""
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    return Kind.LINK if stat.S_ISLNK(mode) else None


def unmoved(then: Signature, now: Signature) -> bool:
    """Say whether it is the same object and unchanged, though it may have been renamed.

    A rename moves an object's ctime, so that is left out; the size of a directory is too.
    """
    if stat.S_ISDIR(then.mode):
        return (then.device, then.inode, then.mode) == (now.device, now.inode, now.mode)
    return then._replace(ctime_ns=0) == now._replace(ctime_ns=0)


class Surprised(NamedTuple):
    """The place was not as its row says, and nothing was done (or it was undone): scan it.

    path: where; found: what a look saw there, None: nothing, or nothing that can be looked at.
    """

    path: bytes
    found: Signature | None


class At(NamedTuple):
    """A place ready to be acted on: its path, the open directory that holds it, its name."""

    path: bytes
    fd: int
    name: bytes

    def look(self) -> Signature | None:
        """Look at the place; None: nothing is there. Raises OSError."""
        return look_at(self.fd, self.name)

    def surprise(self) -> Surprised:
        """Return what a look sees here, as a surprise."""
        try:
            return Surprised(self.path, self.look())
        except OSError:
            return Surprised(self.path, None)


class Opened:
    """The context of one act or look at a place: its directory is open inside.

    A class, and not a generator: it is entered for every file of a first sync.
    """

    __slots__ = ("_fd", "_path", "_root")

    def __init__(self, root: int, path: bytes) -> None:
        self._root = root
        self._path = path

    def __enter__(self) -> At:
        parent, _, name = self._path.rpartition(b"/")
        self._fd = syscalls.open_beneath(self._root, parent, os.O_PATH | os.O_DIRECTORY)
        return At(self._path, self._fd, name or b".")

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)


class Ground:
    """An open root: its directories, traits, and looks at what is beneath."""

    path: bytes
    fd: int
    traits: Traits
    owner: tuple[int, int] | None
    """uid and gid for what is made here; None: those of this process are right."""

    def __init__(self, path: bytes, fd: int) -> None:
        self.path = path
        self.fd = fd
        status = os.fstat(fd)
        self._using = 0
        self._closed = False
        self._unused = threading.Condition()
        owner, ours = (status.st_uid, status.st_gid), (os.geteuid(), os.getegid())
        self.owner = owner if os.geteuid() == 0 and owner != ours else None

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the root open while another thread than its owner's reads or prepares.

        Raises:
            OSError: EBADF, it is closed; its descriptors may belong to somebody else by now.
        """
        with self._unused:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            self._using += 1
        try:
            yield
        finally:
            with self._unused:
                self._using -= 1
                self._unused.notify_all()

    def wait_unused(self) -> None:
        """Let nobody begin to use it any more, and wait for those who do."""
        with self._unused:
            self._closed = True
            self._unused.wait_for(lambda: not self._using)

    def open_directory(self, path: bytes) -> int:
        """Open a directory of the folder for listing; the caller closes it.

        Raises:
            OSError: ENOENT, ENOTDIR or ELOOP (a link stands there or above): there is none;
                EACCES, EIO and others: it cannot be read.
        """
        return syscalls.open_beneath(self.fd, path, os.O_RDONLY | os.O_DIRECTORY)

    def look(self, path: bytes) -> Signature | None:
        """Look at an object without following it.

        Returns:
            None when nothing is there, also when what is above is missing or not a directory.

        Raises:
            OSError: nobody can say (EACCES, EIO): never take that for a delete.
        """
        try:
            with self.at(path) as place:
                return place.look()
        except OSError as error:
            if error.errno in ABSENT:
                return None
            raise

    def at(self, path: bytes) -> Opened:
        """Open the directory that holds a path, for one act or look. Raises OSError."""
        return Opened(self.fd, path)

    def own(self, directory: int, name: bytes) -> None:
        """Give what we made to the owner of the root; see `owner`."""
        if self.owner is not None:
            syscalls.set_owner(directory, name, self.owner)

    def rename_new(self, from_fd: int, source: bytes, to_fd: int, target: bytes) -> None:
        """Rename only if nothing has the target name, as well as the filesystem can.

        Raises:
            OSError: EEXIST when something has it.
        """
        if self.traits.noreplace:
            try:
                syscalls.rename_new(from_fd, source, to_fd, target)
            except OSError as error:
                if error.errno not in syscalls.NOT_SUPPORTED:
                    raise
            else:
                return
        rename_without_flags(from_fd, source, to_fd, target)


def rename_without_flags(from_fd: int, source: bytes, to_fd: int, target: bytes) -> None:
    """Rename only if nothing has the target name, where the kernel cannot promise it.

    A second name is made atomically and the first taken away; a crash between leaves both.
    """
    try:
        syscalls.link(from_fd, source, to_fd, target)
    except OSError as error:
        if error.errno not in syscalls.NO_LINKS:
            raise
    else:
        syscalls.unlink(from_fd, source)
        return
    if look_at(to_fd, target) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    # RACE: a file made here in this very moment is replaced. Only directories (which never
    # replace a file) and files on filesystems with neither flags nor hard links come here.
    syscalls.rename(from_fd, source, to_fd, target)
