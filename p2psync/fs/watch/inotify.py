"""The kernel's inotify, as five calls and tuples of what it says.

A library would be one more dependency for the same five calls: those that are kept up give a
`Path` and an object per event, so a name that is not UTF-8 or 10,000 events cost too much.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
IS_DIRECTORY: Final = 0x4000_0000

CHANGES: Final = MODIFY | ATTRIB | CLOSE_WRITE | MOVED_FROM | MOVED_TO | CREATE | DELETE
"""What is asked about the children of a directory."""

ITSELF: Final = DELETE_SELF | MOVE_SELF
"""What is asked about a directory itself, in addition."""

_ONLY_DIRECTORY: Final = 0x0100_0000
_NOT_UNLINKED: Final = 0x0400_0000  # nothing of files that have no name any more
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_HEADER: Final = struct.Struct("iIII")  # watch, mask, cookie, bytes of the name
_BUFFER: Final = 64 * 1024  # at most 4,096 events a read

Event = tuple[int, int, int, bytes]
"""The watch it belongs to, what it is, the cookie of a rename, the child's name."""


class Inotify:
    """An inotify descriptor. Raises OSError when the system gives no more of them."""

    def __init__(self) -> None:
        self.fd: int = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _error("inotify")

    def add(self, directory: int, mask: int) -> int:
        """Watch an open directory; return the number of its watch.

        A directory that is watched already keeps its number. Asked by descriptor, so that no
        link is ever followed, whatever is renamed meanwhile, and no path is too long.

        Raises:
            OSError: ENOSPC: the system gives no more watches; EACCES: it may not be read.
        """
        path = b"/proc/self/fd/%d" % directory
        watch: int = _LIBC.inotify_add_watch(
            self.fd, path, mask | _ONLY_DIRECTORY | _NOT_UNLINKED
        )
        if watch < 0:
            raise _error(path)
        return watch

    def remove(self, watch: int) -> None:
        """Watch no more; one that has ended by itself will do."""
        _LIBC.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[Event]:
        """Return the events that are there, not endlessly many; none when there is none."""
        try:
            data = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at, end, unpack = 0, len(data), _HEADER.unpack_from
        while at < end:
            watch, mask, cookie, length = unpack(data, at)
            at += 16
            events.append((watch, mask, cookie, data[at : at + length].rstrip(b"\0")))
            at += length
        return events

    def close(self) -> None:
        """End all watches."""
        os.close(self.fd)


def _error(what: str | bytes) -> OSError:
    number = ctypes.get_errno() or errno.EINVAL
    return OSError(number, os.strerror(number), what)
