"""Handles the files of a database as files: made for their owner alone, put aside when damaged.

NAME              the database
NAME-wal, -shm    its log, while it is in use
NAME.damaged      a note: damage was met in it, put it aside at the next opening
NAME.corrupt-N    put aside, with its log NAME.corrupt-N-wal
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Final, NoReturn

from p2psync.errors import CorruptIndexError, StoreError

CORRUPT_KEPT: Final = 3


def put_aside(path: pathlib.Path, why: str) -> NoReturn:
    """Rename the database and its log aside, and say so."""
    try:
        aside = _name_aside(path)
        for suffix in ("-wal", ""):
            found = _beside(path, suffix)
            if found.exists():
                found.rename(_beside(aside, suffix))
        _beside(path, "-shm").unlink(missing_ok=True)
        note_of(path).unlink(missing_ok=True)
        _sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: damaged, and {error.strerror}") from error
    raise CorruptIndexError(f"{path}: {why}; put aside as {aside.name}")


def create(path: pathlib.Path) -> None:
    """Create the empty file for the owner alone; SQLite gives its log the same mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    _sync_directory(path.parent)


def remove_strangers(path: pathlib.Path) -> None:
    """Remove what SQLite would play back into the database although it is not of it.

    We keep no rollback journal; a log without a database belonged to a deleted one.
    """
    _beside(path, "-journal").unlink(missing_ok=True)
    if not path.exists():
        log_of(path).unlink(missing_ok=True)
        _beside(path, "-shm").unlink(missing_ok=True)


def _sync_directory(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(path.name + suffix)


def log_of(path: pathlib.Path) -> pathlib.Path:
    """Return the name of the write-ahead log; it exists while the database is in use."""
    return _beside(path, "-wal")


def note_of(path: pathlib.Path) -> pathlib.Path:
    """Return the name whose existence says: damage was met in this database."""
    return _beside(path, ".damaged")


def _name_aside(path: pathlib.Path) -> pathlib.Path:
    """Return the next free name aside; of the earlier ones only the newest few are kept."""
    numbers = sorted(
        int(found.group(1))
        for entry in path.parent.iterdir()
        if (found := re.fullmatch(re.escape(path.name) + r"\.corrupt-(\d+)", entry.name))
    )
    for number in numbers[: max(0, len(numbers) - CORRUPT_KEPT + 1)]:
        for suffix in ("", "-wal"):
            _beside(path, f".corrupt-{number}{suffix}").unlink(missing_ok=True)
    return _beside(path, f".corrupt-{(numbers or [0])[-1] + 1}")
