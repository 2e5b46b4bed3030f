"""The marker that makes a directory a root, and what tells one root from another.

`.p2psync/marker` names the replica and the folder, and holds a random number drawn when it
was made: a copied or restored root, or another disk on the same mount point, is another root.
No marker, no sync; nothing here ever makes a lost one again (faults J01-J07).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from typing import Final, NamedTuple

from p2psync.errors import RootTrouble
from p2psync.fs import syscalls
from p2psync.fs.ground import rename_without_flags

CONTROL: Final = b".p2psync"
NAME: Final = b"marker"
_BYTES: Final = 1_024
_FIRST: Final = "p2psync root 1"


class RootIdentity(NamedTuple):
    """What tells one root from another; a difference is a discontinuity (design 4.9).

    device: the filesystem's own id where it has one, else its device number. inode: the root
    directory's. marker: the marker's bytes.
    """

    device: int
    inode: int
    marker: bytes


def identify(fd: int, marker: bytes) -> RootIdentity:
    """Return the identity of an open root directory with this marker."""
    status = os.fstat(fd)
    # a device number may be another one after the next start; the id stays where there is one
    device = os.fstatvfs(fd).f_fsid or status.st_dev
    return RootIdentity(device & (2**63 - 1), status.st_ino & (2**63 - 1), marker)


def text_of(replica: bytes, folder: bytes) -> bytes:
    """Return the bytes of a new marker, unlike those of any other."""
    lines = (
        _FIRST,
        f"replica {replica.hex()}",
        f"folder {folder.hex()}",
        f"random {secrets.token_hex(8)}",
        "",
        "This directory is kept equal by p2psync. Without this file it is not synced.",
        "",
    )
    return "\n".join(lines).encode()


def read(control: int) -> bytes | None:
    """Return the marker's bytes from an open `.p2psync`; None: there is none.

    Raises:
        OSError: nobody can say.
    """
    try:
        file = syscalls.open_beneath(control, NAME, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return None
        return os.pread(file, _BYTES, 0)
    finally:
        os.close(file)


def write(control: int, text: bytes) -> None:
    """Write a marker where there is none, durably and all at once. Raises OSError."""
    temporary = b"marker-" + secrets.token_hex(8).encode()
    file = syscalls.create(control, temporary)
    try:
        syscalls.write(file, text, 0)
        syscalls.fsync(file)
        rename_without_flags(control, temporary, control, NAME)
    finally:
        os.close(file)
        with contextlib.suppress(FileNotFoundError):
            syscalls.unlink(control, temporary)
    syscalls.fsync(control)


def belongs(marker: bytes, replica: bytes, folder: bytes) -> bool:
    """Say whether a marker was made for this replica of this folder."""
    wanted = [_FIRST.encode(), b"replica " + replica.hex().encode()]
    return marker.splitlines()[:3] == [*wanted, b"folder " + folder.hex().encode()]


# ---------------------------------------------------------------------- is it a root?


def open_root(path: bytes) -> int:
    """Open what should be a root directory; raises RootTrouble.

    The path itself may lead through links: a person named it (fault H14).
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise RootTrouble("missing", f"{_shown(path)} is not there") from error
    except NotADirectoryError as error:
        raise RootTrouble("not a directory", f"{_shown(path)} is not a directory") from error
    except OSError as error:
        raise unreadable(path, error) from error


def open_control(path: bytes, fd: int) -> int:
    """Open `.p2psync` of an open directory; raises RootTrouble or OSError."""
    try:
        return syscalls.open_beneath(fd, CONTROL, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError as error:
        raise lost(path) from error


def demand(path: bytes, found: bytes | None, replica: bytes, folder: bytes) -> None:
    """Raise RootTrouble unless this marker is one of this replica of this folder."""
    if found is None:
        raise lost(path)
    if not belongs(found, replica, folder):
        raise RootTrouble(
            "foreign marker",
            f"{_shown(path)} is a copy of another folder of p2psync, or somebody else on this "
            f"machine shares it; if not, remove the file .p2psync/marker in it",
        )


def lost(path: bytes) -> RootTrouble:
    """Return the trouble of a root without a marker."""
    return RootTrouble(
        "no marker",
        f"{_shown(path)} has lost its marker; perhaps the disk that held it is not mounted. "
        f"Nothing is synced or deleted until it is back",
    )


def replaced(path: bytes) -> RootTrouble:
    """Return the trouble of another directory at the root's path."""
    message = f"{_shown(path)} is not the directory it was when it was opened"
    return RootTrouble("replaced", message)


def unreadable(path: bytes, error: OSError) -> RootTrouble:
    """Return the trouble of a root that cannot be looked at."""
    return RootTrouble("unreadable", f"{_shown(path)} cannot be read: {_why(error)}")


def unwritable(path: bytes, error: OSError) -> RootTrouble:
    """Return the trouble of a directory that cannot be made a root."""
    message = f"{_shown(path)} cannot be made a folder of p2psync: {_why(error)}"
    return RootTrouble("unwritable", message)


def _shown(path: bytes) -> str:
    """Return a path as a person may be shown it: no control characters."""
    text = path.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
