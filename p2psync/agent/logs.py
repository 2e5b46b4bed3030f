"""The agent's log: bounded in size, one line per record, no control characters.

What is logged is what happened and why, never keys or codes. Other libraries only get a word
in for warnings.
"""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import sys
from pathlib import Path
from typing import Final

FILE_BYTES: Final = 1_000_000
FILES_KEPT: Final = 3
OURS: Final = ("p2psync", "discovery")


def to_file(file: Path, level: str) -> None:
    """Log to a file that only the owner can read and that starts anew at 1 MB."""
    handler = _PrivateFile(
        file, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", delay=True
    )
    _use(handler, "%(asctime)s %(levelname)-7s %(name)s: %(message)s", level)


def to_stderr(level: str) -> None:
    """Log to stderr; without the time where a journal adds its own."""
    dated = "%(asctime)s " if sys.stderr.isatty() else ""
    _use(logging.StreamHandler(), dated + "%(levelname)-7s %(name)s: %(message)s", level)


def _use(handler: logging.Handler, form: str, level: str) -> None:
    handler.setFormatter(_Escaping(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)


class _Escaping(logging.Formatter):
    """Names from disks and peers must not move the reader's cursor or forge a line."""

    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = "%s.%03d"

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escaped(super().formatMessage(record))

    def formatException(  # noqa: N802 - logging's name
        self, ei: logging._SysExcInfoType
    ) -> str:
        return "\n".join(map(escaped, super().formatException(ei).split("\n")))


def escaped(text: str) -> str:
    """Return the text on one line, with what is not printable as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class _PrivateFile(logging.handlers.RotatingFileHandler):
    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.baseFilename, flags, 0o600)
        return io.TextIOWrapper(
            open(descriptor, "ab"), encoding=self.encoding, errors="backslashreplace"
        )
