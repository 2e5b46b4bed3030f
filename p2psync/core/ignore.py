"""Ignore rules with gitignore's meaning, matched in linear time whatever the rules say.

As git documents it: the last rule that matches decides, and nothing below an ignored directory
can be taken back in, so a scan need not descend into one. Where git quietly drops a rule it
cannot understand, we refuse the whole file: who wrote the rule wanted something ignored.
`*` and `?` stand for characters, not bytes; a byte that is not UTF-8 counts as one character.

What one rule means is said by `core/gitignore.py`, which is imported with the first rule: it
needs RE2 and pathspec, 3 MB that an agent without ignore files never touches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from blake3 import blake3

RULES_BYTES: Final = 1024 * 1024
OWN_DIRECTORY: Final = b".p2psync"
_CACHED_DIRECTORIES: Final = 10_000

_NOT_UTF8: Final = dict.fromkeys(range(0xDC80, 0xDD00), "\N{REPLACEMENT CHARACTER}")

Matches = Callable[[str, bool], bool]
"""Says whether rules ignore a path by itself; with True it is a directory's."""


class Rules:
    """The rules of one ignore file; `ignored` is safe to call from several threads.

    digest: 32 bytes that change when the rules do; comments and blank lines are no rules.
    """

    def __init__(self, matches: Matches | None, digest: bytes) -> None:
        """Take what decides; None: there are no rules."""
        self.digest = digest
        self._matches = matches
        self._directories: dict[bytes, bool] = {b"": False}

    @classmethod
    def parse(cls, text: bytes) -> Rules:
        """Read an ignore file.

        Raises:
            ValueError: with the line's number, if it is not UTF-8, too long, or holds a rule
                that could never match anything.
        """
        if len(text) > RULES_BYTES:
            raise ValueError(f"the rules are longer than {RULES_BYTES} bytes")
        rules: list[tuple[int, str]] = []
        hasher = blake3()
        for number, raw in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            try:
                line = _stripped(raw.removesuffix(b"\r").decode())
            except UnicodeError as error:
                raise ValueError(f"line {number}: is not UTF-8") from error
            if line and not line.startswith("#"):
                rules.append((number, line))
                hasher.update(line.encode() + b"\n")
        if not rules:
            return cls(None, hasher.digest())
        from p2psync.core import gitignore  # heavy: see above

        return cls(gitignore.matches(rules), hasher.digest())

    def ignored(self, path: bytes, is_directory: bool | None = None) -> bool:
        """Say whether nothing is to be done about this path.

        Args:
            path: relative to the root; b"" is the root itself and never ignored.
            is_directory: what stands there; with None it is ignored if either would be.
        """
        if path in (b"", OWN_DIRECTORY) or path.startswith(OWN_DIRECTORY + b"/"):
            return path != b""
        if self._matches is None:
            return False
        directory = path.rpartition(b"/")[0]
        if self._ignored_directory(self._matches, directory):
            return True
        if is_directory is None:
            return _decide(self._matches, path, False) or _decide(self._matches, path, True)
        return _decide(self._matches, path, is_directory)

    def _ignored_directory(self, matches: Matches, directory: bytes) -> bool:
        """Say whether a directory or one above it is ignored; remembered for its children."""
        unknown: list[bytes] = []
        while (answer := self._directories.get(directory)) is None:
            unknown.append(directory)
            directory = directory.rpartition(b"/")[0]
        for below in reversed(unknown):
            answer = answer or _decide(matches, below, True)
            if len(self._directories) >= _CACHED_DIRECTORIES:
                self._directories = {b"": False}
            self._directories[below] = answer
        return answer


def _decide(matches: Matches, path: bytes, is_directory: bool) -> bool:
    """Apply the rules to the path alone, as if nothing above it were ignored."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = path.decode(errors="surrogateescape").translate(_NOT_UTF8)
    return matches(text, is_directory)


def _stripped(line: str) -> str:
    """Drop trailing blanks, except one that a backslash escapes."""
    bare = line.rstrip(" ")
    backslashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if backslashes % 2 and bare != line else bare


NOTHING: Final = Rules.parse(b"")
