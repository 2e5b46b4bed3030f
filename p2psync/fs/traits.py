"""What one filesystem can do, found out by trying inside `.p2psync/staging`.

Never decided by a filesystem's name: a mount option, a kernel or FUSE may take away what the
name promises. Where trying is impossible (read-only, full) the usual is assumed, and whoever
acts on it must live with being wrong.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from p2psync.fs import syscalls

TICK_NS: Final = 10_000_000
"""How far behind the clock a kernel's timestamps may be (100 ticks a second)."""

_TRIED_MTIME_NS: Final = 1_234_567_891_123_456_789
"""Odd in its seconds and in every decimal, so that whatever is cut off shows."""

_UNITS_NS: Final = (2_000_000_000, 1_000_000_000, 10_000_000, 1_000_000, 1_000, 100)


@dataclass(frozen=True)
class Traits:
    """What the filesystem of a root can do.

    exchange: two names change places in one step. noreplace: a rename that never replaces.
    links: symbolic links. executable: the executable bit stays. stored_ns: the unit in which
    it stores times. mode: what a new file gets of 0777 under this process's umask.
    """

    exchange: bool = True
    noreplace: bool = True
    links: bool = True
    executable: bool = True
    stored_ns: int = 1
    mode: int = 0o755

    @property
    def grain_ns(self) -> int:
        """Two changes of a file closer together than this, in ns, may have equal times."""
        return max(self.stored_ns, TICK_NS)


def probe(staging: int) -> Traits:
    """Try everything in the open staging directory; leaves nothing behind.

    What cannot be tried is taken to be as `Traits()` says.
    """
    one, two = (b"new-" + secrets.token_hex(8).encode() for _ in range(2))
    try:
        file = os.open(one, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o777, dir_fd=staging)
    except OSError:
        return Traits()
    try:
        os.close(os.open(two, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=staging))
        return Traits(
            mode=os.fstat(file).st_mode & 0o777,
            executable=_keeps_executable(file),
            stored_ns=_stored_ns(file),
            exchange=_works(lambda: syscalls.exchange(staging, one, staging, two)),
            noreplace=_refuses_to_replace(staging, one, two),
            links=_has_links(staging, two),
        )
    except OSError:
        return Traits()
    finally:
        os.close(file)
        for name in (one, two):
            with contextlib.suppress(OSError):
                syscalls.unlink(staging, name)


def _works(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _keeps_executable(file: int) -> bool:
    def kept(mode: int) -> bool:
        os.fchmod(file, mode)
        return os.fstat(file).st_mode & 0o100 == mode & 0o100

    try:
        return kept(0o600) and kept(0o700)
    except OSError:
        return False


def _stored_ns(file: int) -> int:
    os.utime(file, ns=(_TRIED_MTIME_NS, _TRIED_MTIME_NS))
    stored = os.fstat(file).st_mtime_ns
    return next((unit for unit in _UNITS_NS if stored % unit == 0), 1)


def _refuses_to_replace(staging: int, one: bytes, two: bytes) -> bool:
    try:
        syscalls.rename_new(staging, one, staging, two)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


def _has_links(staging: int, name: bytes) -> bool:
    with contextlib.suppress(OSError):
        syscalls.unlink(staging, name)
    return _works(lambda: syscalls.symlink(staging, name, b"."))
