"""What a command prints, for people or as one JSON object per line, and where to.

For people: text on stderr, and on stdout only data. As JSON: everything on stdout, ASCII only;
a byte of a name that is not UTF-8 is a lone surrogate, as Python's `os.fsdecode` has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, Final, TextIO

import msgspec

from p2psync.control import messages as public
from p2psync.core import paths
from p2psync.errors import ExitCode

HIDDEN: Final = {
    public.Status: ("name",),
    public.FolderInfo: ("name", "detail", "files", "size_bytes"),
    public.ProblemInfo: ("blocks",),
    public.PeerInfo: ("need_files", "need_bytes"),
}
"""What people are shown and the contract of `--json` does not have."""


def printable(text: str | bytes) -> str:
    """Return a name from a disk or a peer so that it cannot act on a terminal."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return paths.printable(raw)


def plain(message: object) -> Any:
    """Return a message as JSON has it."""
    if isinstance(message, msgspec.Struct):
        kind = type(message)
        fields = {
            shown: plain(getattr(message, name))
            for name, shown in zip(
                kind.__struct_fields__, kind.__struct_encode_fields__, strict=True
            )
            if name not in HIDDEN.get(kind, ())
        }
        tag = kind.__struct_config__.tag
        return {"type": tag, **fields} if tag else fields
    if isinstance(message, bytes):
        return message.decode("utf-8", "surrogateescape")
    if isinstance(message, tuple):
        return [plain(item) for item in message]
    return message


class Output:
    """The two ways of printing, as one thing a command can use without asking which."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, text: str = "") -> None:
        """Tell a person something; nothing with `--json`."""
        if not self.as_json:
            _write(sys.stderr, text)

    def data(self, text: str) -> None:
        """Print what a script would take; nothing with `--json`, which has its own form."""
        if not self.as_json:
            _write(sys.stdout, text)

    def event(self, message: public.Event) -> None:
        """Print a line of `--json`; nothing for people."""
        self.fields(plain(message))

    def fields(self, line: dict[str, Any]) -> None:
        """Print a line of `--json` that no message of the agent stands for."""
        if self.as_json:
            _write(sys.stdout, json.dumps(line))

    def result(self, exit_code: int, error: str | None = None) -> int:
        """Print how the command ended; return the exit code."""
        if error:
            prefix = (
                "" if exit_code in (ExitCode.CONFLICTS, ExitCode.INTERRUPTED) else "Error: "
            )
            self.say(prefix + error)
        self.fields({"type": "result", "exit": int(exit_code), "error": error or None})
        return int(exit_code)


def is_terminal() -> bool:
    """Return whether a person can be asked something."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _write(stream: TextIO, text: str) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:
        ascii_only = text.encode("ascii", "backslashreplace").decode()
        print(ascii_only, file=stream, flush=True)
    except BrokenPipeError:
        if stream is sys.stdout:  # whoever read our data has had enough
            raise
    except OSError:
        # a lost terminal: there is nobody to tell, and the work goes on
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
