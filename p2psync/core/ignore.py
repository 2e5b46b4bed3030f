"""Ignore rules with gitignore's meaning, matched in linear time whatever the rules say.

As git documents it: the last rule that matches decides, and nothing below an ignored directory
can be taken back in, so a scan need not descend into one. Where git quietly drops a rule it
cannot understand, we refuse the whole file: who wrote the rule wanted something ignored.
`*` and `?` stand for characters, not bytes; a byte that is not UTF-8 counts as one character.

Rules arrive from peers, so a rule must not be able to stall a scan. pathspec was tried and
dropped: its backtracking regular expressions need minutes for one name and the rule
`*a*a*a*a*a*a*b`. Here a star commits to the first place where what follows it fits, which
loses no match and never goes back (`docs/decisions/0003-ignore-rules.md`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

RULES_BYTES: Final = 1024 * 1024
OWN_DIRECTORY: Final = b".p2psync"
_CACHED_DIRECTORIES: Final = 10_000

_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}

Fits = Callable[[str], object]
"""Says by a true value whether one name fits one segment of a rule."""


class _Rule(NamedTuple):
    """One line of an ignore file.

    segments: what fits the path's names one by one; None, written `**`, is any number of names.
    floating: the only segment is for the last name, at any depth.
    depth: how many names a path must have to match; None: that does not matter.
    glob: that segment's text, for the quick look at names.
    """

    ignores: bool
    directories_only: bool
    segments: list[Fits | None]
    floating: bool
    depth: int | None
    glob: _Glob | None


class Rules:
    """The rules of one ignore file; `ignored` is safe to call from several threads.

    digest: 32 bytes that change when the rules do; comments and blank lines are no rules.
    """

    def __init__(self, rules: list[_Rule], digest: bytes) -> None:
        self.digest = digest
        self._rules = rules[::-1]  # the last one that matches decides
        self._anchored = [rule for rule in self._rules if not rule.floating]
        globs = [rule.glob for rule in self._rules if rule.glob]
        self._names = frozenset(glob.name for glob in globs if glob.name is not None)
        self._suffixes = tuple(glob.suffix for glob in globs if glob.suffix is not None)
        self._others = [
            glob.fits for glob in globs if glob.name is None and glob.suffix is None
        ]
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
        rules: list[_Rule] = []
        hasher = blake3()
        for number, raw in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            try:
                line = _stripped(raw.removesuffix(b"\r").decode())
                if line and not line.startswith("#"):
                    rules.append(_rule(line))
                    hasher.update(line.encode() + b"\n")
            except ValueError as error:
                reason = "is not UTF-8" if isinstance(error, UnicodeError) else str(error)
                raise ValueError(f"line {number}: {reason}") from error
        return cls(rules, hasher.digest())

    def ignored(self, path: bytes, is_directory: bool | None = None) -> bool:
        """Say whether nothing is to be done about this path.

        Args:
            path: relative to the root; b"" is the root itself and never ignored.
            is_directory: what stands there; with None it is ignored if either would be.
        """
        if path in (b"", OWN_DIRECTORY) or path.startswith(OWN_DIRECTORY + b"/"):
            return path != b""
        if not self._rules:
            return False
        directory = path.rpartition(b"/")[0]
        if self._ignored_directory(directory):
            return True
        if is_directory is None:
            return self._decide(path, False) or self._decide(path, True)
        return self._decide(path, is_directory)

    def _ignored_directory(self, directory: bytes) -> bool:
        """Say whether a directory or one above it is ignored; remembered for its children."""
        unknown: list[bytes] = []
        while (answer := self._directories.get(directory)) is None:
            unknown.append(directory)
            directory = directory.rpartition(b"/")[0]
        for below in reversed(unknown):
            answer = answer or self._decide(below, True)
            if len(self._directories) >= _CACHED_DIRECTORIES:
                self._directories = {b"": False}
            self._directories[below] = answer
        return answer

    def _decide(self, path: bytes, is_directory: bool) -> bool:
        """Apply the rules to the path alone, as if nothing above it were ignored."""
        names = path.decode(errors="surrogateescape").split("/")
        # Rejected at once: what no rule about names alone can match, which is nearly all.
        rules = self._rules if self._may_float(names[-1]) else self._anchored
        for rule in rules:
            if rule.directories_only and not is_directory:
                continue
            if rule.depth not in (None, len(names)):
                continue
            if _fit(rule.segments, names[-1:] if rule.floating else names):
                return rule.ignores
        return False

    def _may_float(self, name: str) -> bool:
        """Say whether some rule about names alone matches, whatever comes of it."""
        return (
            name in self._names
            or name.endswith(self._suffixes)
            or any(fits(name) for fits in self._others)
        )


def _stripped(line: str) -> str:
    """Drop trailing blanks, except one that a backslash escapes."""
    bare = line.rstrip(" ")
    backslashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if backslashes % 2 and bare != line else bare


def _rule(line: str) -> _Rule:
    ignores = not line.startswith("!")
    body = line if ignores else line[1:]
    directories_only = body.endswith("/")
    body = body.removesuffix("/")
    floating = "/" not in body
    names = body.removeprefix("/").split("/")
    if any(name in ("", ".", "..") for name in names):
        raise ValueError(f"the rule {line!r} can match nothing")
    if len(names) == 2 and names[0] == "**":
        names, floating = names[1:], True  # `**/a` is just `a`
    if names[-1] == "**":
        names.append("*")  # `a/**` is everything inside a, not a itself
    if floating:
        names = names[-1:]
    globs = [None if name == "**" else _Glob(name) for name in names]
    segments: list[Fits | None] = [glob.fits if glob else None for glob in globs]
    depth = None if floating or None in segments else len(segments)
    glob = globs[0] if floating else None
    return _Rule(ignores, directories_only, segments, floating, depth, glob)


def _fit(segments: Sequence[Fits | None], names: Sequence[str]) -> bool:
    """Say whether the names fit the segments, all of both.

    A `**` commits to the first place where the segments up to the next `**` fit: going back to
    it later could only start them further down, where the same names are still to come.
    """
    at = seen = 0
    star = -1
    retry = 0
    while seen < len(names):
        if at < len(segments) and (fits := segments[at]) is None:
            star, retry = at, seen
            at += 1
        elif at < len(segments) and fits and fits(names[seen]):
            at += 1
            seen += 1
        elif star >= 0:
            retry += 1
            at, seen = star + 1, retry
        else:
            return False
    return all(segment is None for segment in segments[at:])


class _Glob:
    """One component of a rule, as runs of characters with stars between them.

    name: the only name it fits; suffix: what names must end with to fit; both None for others.
    """

    def __init__(self, text: str) -> None:
        """Read the text between two slashes; raise ValueError if it can match nothing."""
        runs: list[list[str]] = [[]]
        plain = ""
        simple = True
        for piece, literal in _pieces(text):
            if piece == "*" and not literal:
                if runs[-1] or len(runs) == 1:  # `**` in a name means no more than `*`
                    runs.append([])
                continue
            runs[-1].append(re.escape(piece) if literal else piece)
            plain += piece
            simple = simple and literal
        self.name = plain if simple and len(runs) == 1 else None
        self.suffix = plain if simple and len(runs) == 2 and not runs[0] else None
        self._runs = [re.compile("".join(run), re.DOTALL) for run in runs]
        self._last_length = len(runs[-1])
        self._shortest = sum(map(len, runs))

    def fits(self, name: str) -> bool:
        """Say whether the whole name fits; each run looks at each character at most once."""
        if self.name is not None:
            return name == self.name
        if self.suffix is not None:
            return name.endswith(self.suffix)
        if len(name) < self._shortest:
            return False
        if len(self._runs) == 1:
            return self._runs[0].fullmatch(name) is not None
        first, *middle, last = self._runs
        end = len(name) - self._last_length
        found = first.match(name)
        for run in middle:
            if found is None:
                return False
            found = run.search(name, found.end(), end)
        return found is not None and found.end() <= end and last.match(name, end) is not None


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Split a glob into single characters (literal) and expressions for one, or a star."""
    at = 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "\\":
            if at == len(text):
                raise ValueError("a backslash at the end escapes nothing")
            yield text[at], True
            at += 1
        elif character == "[":
            expression, at = _bracket(text, at)
            yield expression, False
        elif character in "*?":
            yield "." if character == "?" else "*", False
        else:
            yield character, True


def _bracket(text: str, at: int) -> tuple[str, int]:
    """Read what follows `[`; return an expression for one character, and where it ends."""
    negated = text[at : at + 1] in ("!", "^")
    at += negated
    items = ""
    first = True
    while first or text[at : at + 1] != "]":
        first = False
        if text.startswith("[:", at):
            name, closed, _ = text[at + 2 :].partition(":]")
            if not closed or name not in _CLASSES:
                raise ValueError(f"there is no class of characters [:{name}:]")
            items += _CLASSES[name]
            at += len(name) + 4
            continue
        low, at = _member(text, at)
        high = low
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] not in ("]", ""):
            high, at = _member(text, at + 1)
        if low > high:
            raise ValueError(f"the range {low}-{high} is empty")
        items += f"{re.escape(low)}-{re.escape(high)}"
    return f"[{'^' if negated else ''}{items}]", at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    """Return one character inside brackets, and the place behind it."""
    if text[at : at + 1] == "\\":
        at += 1
    if at >= len(text):
        raise ValueError("a bracket is opened and not closed")
    return text[at], at + 1


NOTHING: Final = Rules.parse(b"")
