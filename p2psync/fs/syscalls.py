"""Every call by which the agent changes a disk or makes it durable, and those Python lacks.

All of them act relative to an open directory, on one name, and never follow a link. Nothing
else in this room asks the kernel for an effect, so a faulty disk (or a process that dies
between two effects) is made by replacing functions of this module: `EFFECTS` names them.
Each raises OSError.

`exchange` and `rename_new` are `renameat2`, which Python does not have; `open_beneath` is
`openat2`, with a walk over the components where the kernel or a sandbox refuses it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import time
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_RENAMEAT2: Final = getattr(_LIBC, "renameat2", None)  # an old or small libc has none
_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
_OPENAT2: Final = 437  # the same number on every architecture Linux has had since 2019
_RESOLVE: Final = 0x02 | 0x04 | 0x08  # no magic links, no symlinks, beneath
_FICLONE: Final = 0x40049409
_DONTCACHE: Final = 0x80  # RWF_DONTCACHE, Linux 6.14
_PAGE: Final = 4_096
_PIECE_BYTES: Final = 4_000  # of a path in one call; the kernel takes 4,095 (fault G03)

NOT_SUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
"""What a filesystem or kernel answers to a rename flag it does not have."""

NO_LINKS: Final = NOT_SUPPORTED | {errno.EPERM, errno.EMLINK}
"""What a filesystem without hard links answers to `link`."""

EFFECTS: Final = (
    "clone",
    "create",
    "exchange",
    "fsync",
    "hold_size",
    "link",
    "make_directory",
    "remove_directory",
    "rename",
    "rename_new",
    "set_mode",
    "set_mtime",
    "set_owner",
    "symlink",
    "sync_filesystem",
    "unlink",
    "write",
    "write_uncached",
)
"""The names of the functions here that change the disk or make it durable."""


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


_HOW_BYTES: Final = ctypes.sizeof(_OpenHow)


def now_ns() -> int:
    """Return the wall clock in ns since 1970: the one place where this room takes the time."""
    return time.time_ns()


# ---------------------------------------------------------------------- opening


def open_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open a relative path without ever leaving the directory or crossing a link.

    Takes paths of any length; b"" is the directory itself. The descriptor is close-on-exec
    and never blocks on a fifo.

    Raises:
        OSError: ELOOP where a component, the last one included, is a link; EXDEV for a path
            that is absolute or has a component "..".
    """
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    if not flags & os.O_PATH:
        flags |= os.O_NONBLOCK | os.O_LARGEFILE
    if path.startswith(b"/") or (b".." in path and b".." in path.split(b"/")):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    if len(path) <= _PIECE_BYTES:
        return _open_piece(directory, path or b".", flags)
    at = directory
    pieces = _pieces(path)
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        step = flags if last else os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            opened = _open_piece(at, piece, step)
        finally:
            if at != directory:
                os.close(at)
        at = opened
    return at


def _pieces(path: bytes) -> list[bytes]:
    """Split a path into relative paths that one call takes each."""
    if len(path) <= _PIECE_BYTES:
        return [path]
    cut = path.rindex(b"/", 0, _PIECE_BYTES)
    return [path[:cut], *_pieces(path[cut + 1 :])]


def _open_piece(directory: int, path: bytes, flags: int) -> int:
    opened: int = _LIBC.syscall(_OPENAT2, directory, path, _how(flags), _HOW_BYTES)
    if opened >= 0:
        return opened
    error = ctypes.get_errno()
    # EPERM: how container sandboxes older than the call refuse it; an open for reading is
    # never refused with it otherwise. EAGAIN: the kernel saw renames on the way.
    if error in (errno.ENOSYS, errno.EPERM, errno.EAGAIN):
        return walk_beneath(directory, path, flags)
    raise OSError(error, os.strerror(error), path)


@functools.cache
def _how(flags: int) -> object:
    """Return the `struct open_how` of these flags; it is only read, by any thread."""
    return ctypes.byref(_OpenHow(flags, 0, _RESOLVE))


def walk_beneath(directory: int, path: bytes, flags: int) -> int:
    """Open component by component, for kernels without `openat2`; crosses no link.

    The path is one that `open_beneath` has looked at.
    """
    at = directory
    parents, name = os.path.split(path)
    try:
        for component in parents.split(b"/") if parents else []:
            opened = os.open(component, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            if at != directory:
                os.close(at)
            at = opened
        return os.open(name, flags, dir_fd=at)
    finally:
        if at != directory:
            os.close(at)


# ---------------------------------------------------------------------- names


def rename(from_fd: int, source: bytes, to_fd: int, target: bytes) -> None:
    """Rename within what is ours alone: whatever had the target name is gone."""
    os.rename(source, target, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def exchange(from_fd: int, source: bytes, to_fd: int, target: bytes) -> None:
    """Let two existing objects of any kinds change places in one step."""
    _renameat2(from_fd, source, to_fd, target, _EXCHANGE)


def rename_new(from_fd: int, source: bytes, to_fd: int, target: bytes) -> None:
    """Rename, in one step, only if nothing has the target name; EEXIST otherwise."""
    _renameat2(from_fd, source, to_fd, target, _NOREPLACE)


def _renameat2(from_fd: int, source: bytes, to_fd: int, target: bytes, flags: int) -> None:
    if _RENAMEAT2 is None or _RENAMEAT2(from_fd, source, to_fd, target, flags) != 0:
        error = errno.ENOSYS if _RENAMEAT2 is None else ctypes.get_errno()
        raise OSError(error, os.strerror(error), source, None, target)


def link(from_fd: int, source: bytes, to_fd: int, target: bytes) -> None:
    """Give an object a second name, only if nothing has it; EEXIST otherwise."""
    os.link(source, target, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)


def unlink(directory: int, name: bytes) -> None:
    """Remove a name that is no directory's."""
    os.unlink(name, dir_fd=directory)


def make_directory(directory: int, name: bytes, mode: int) -> None:
    """Make a directory; the process's umask applies to the mode."""
    os.mkdir(name, mode, dir_fd=directory)


def remove_directory(directory: int, name: bytes) -> None:
    """Remove an empty directory; ENOTEMPTY otherwise."""
    os.rmdir(name, dir_fd=directory)


def symlink(directory: int, name: bytes, target: bytes) -> None:
    """Make a symbolic link with this text."""
    os.symlink(target, name, dir_fd=directory)


# ---------------------------------------------------------------------- contents


def create(directory: int, name: bytes) -> int:
    """Create a file nobody else can read and open it for reading and writing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(name, flags, 0o600, dir_fd=directory)


def write(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of data at the offset, however many calls that takes (fault I14)."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[written:], offset + written


def write_uncached(file: int, data: bytes, offset: int) -> None:
    """Write all of data at the offset, and let it go to the disk without staying in memory.

    For much more than anybody reads again soon. It leaves a person's own files in the page
    cache, and the pages it uses are used again: 1 GiB took 0.5-1.2 s of CPU time instead of
    2.6 s here, and the sync after it 0.01 s instead of 0.35 s. Pages it only covers in part
    stay cached, for the neighbouring piece comes soon and would have to read them.
    """
    view = memoryview(data)
    begin = min(len(data), -offset % _PAGE)
    end = max(begin, len(data) - (offset + len(data)) % _PAGE)
    write(file, view[:begin], offset)
    done = begin
    try:
        while done < end:
            done += os.pwritev(file, [view[done:end]], offset + done, _DONTCACHE)
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    write(file, view[done:], offset + done)


def read_uncached(file: int, size: int, offset: int) -> memoryview:
    """Read up to so many bytes at the offset; what was not cached before does not stay so.

    For a huge file that is read once: its pages are used again instead of taking others.
    """
    buffer = memoryview(bytearray(size))
    try:
        return buffer[: os.preadv(file, [buffer], offset, _DONTCACHE)]
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    return buffer[: os.preadv(file, [buffer], offset)]


def clone(source: int, target: int) -> bool:
    """Let target share source's blocks where the filesystem can; False: it cannot (H12)."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in NOT_SUPPORTED | {errno.EXDEV, errno.ENOTTY, errno.EPERM}:
            return False
        raise
    return True


def hold_size(file: int, size: int) -> None:
    """Set a file's size in bytes; what is new reads as zeros and takes no space."""
    os.ftruncate(file, size)


def set_mode(file: int, mode: int) -> None:
    """Set the permissions, never setuid, setgid or sticky."""
    os.fchmod(file, mode & 0o777)


def set_owner(directory: int, name: bytes, owner: tuple[int, int]) -> None:
    """Give an object, itself and not what it points to, this uid and gid.

    Where the filesystem has no owners, or takes none from us, it keeps those it has.
    """
    with contextlib.suppress(PermissionError):
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)


def set_mtime(file: int, mtime_ns: int) -> None:
    """Set the time of the last change of content, in ns since 1970."""
    os.utime(file, ns=(mtime_ns, mtime_ns))


# ---------------------------------------------------------------------- durability


def fsync(file: int) -> None:
    """Make a file's content, or a directory's names, durable."""
    os.fsync(file)


def sync_filesystem(file: int) -> None:
    """Make everything on the filesystem of this open file durable.

    Where the call is refused, the whole system is synced instead; that reports no errors.
    """
    if _LIBC.syncfs(file) != 0:
        error = ctypes.get_errno()
        if error not in (errno.ENOSYS, errno.EPERM):
            raise OSError(error, os.strerror(error))
        os.sync()
