"""One agent per home: a flock, which the kernel gives back however its holder dies.

The pid in the file is only told to people; what counts is who holds the lock, so stale or
garbled text never blocks anybody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2psync.errors import ExitCode, UserError

PATIENCE_S: Final = 2.0
NAP_S: Final = 0.005


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold the home's lock; it is free again when the context or the process ends.

    Raises:
        UserError: another agent holds it, or the disk cannot lock.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, file)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def holder(file: Path) -> int | None:
    """Return the pid of the agent that holds the lock, 0 if it did not say, None if free."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 20, 0).strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, file: Path) -> None:
    """Take the lock, or raise UserError at once if an agent holds it.

    One that only looks (`holder`) has it shared for an instant: then this tries again.
    """
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not _try(descriptor, fcntl.LOCK_EX):
            if not _try(descriptor, fcntl.LOCK_SH) or time.monotonic() > deadline:
                raise UserError(
                    f"Another agent is already running for the home {file.parent} "
                    f"(process {holder(file) or 'unknown'}). `p2psync stop` ends it.",
                    ExitCode.NO_AGENT,
                )
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            time.sleep(NAP_S)
    except OSError as error:
        raise UserError(
            f"The disk of {file.parent} cannot lock files ({error.strerror}). Choose a "
            "home on another disk: p2psync --home DIR …",
            ExitCode.NO_AGENT,
        ) from error


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
