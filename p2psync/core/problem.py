"""Trouble with one path, as a value: it never stops the others, and clears itself."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Reason(StrEnum):
    """Why a path cannot be synced now; the text is what `status` shows."""

    UNREADABLE = "cannot be read"
    UNWRITABLE = "cannot be written"
    CHANGING = "is still being written"
    NO_SPACE = "no space left on the device"
    READ_ONLY = "the filesystem is read-only"
    NAME_TOO_LONG = "the name is too long for this filesystem"
    NOT_REPRESENTABLE = "this filesystem cannot represent the name"
    RESERVED = "the name is reserved for p2psync"
    SPECIAL = "is neither a file, a directory nor a link"
    TOO_LARGE = "the file is too large to be synced"
    MOUNTED = "another filesystem is mounted here"
    BAD_RULES = "the ignore rules cannot be understood"
    NOT_EMPTY = "the directory still holds ignored or unsynced files"
    OVERLOADED = "the system has no open files or memory left"
    IO_ERROR = "the disk reports an error"


class Problem(NamedTuple):
    """One path that cannot be synced now."""

    path: bytes
    reason: Reason
    detail: str = ""

    @property
    def blocks(self) -> bool:
        """False for what could never be synced and is only mentioned: a socket, a fifo."""
        return self.reason is not Reason.SPECIAL
