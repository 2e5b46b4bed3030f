"""Ignore rules with gitignore's meaning, matched in linear time whatever the rules say.

As git documents it: the last rule that matches decides, and nothing below an ignored directory
can be taken back in, so a scan need not descend into one. Where git quietly drops a rule it
cannot understand, we refuse the whole file: who wrote the rule wanted something ignored.
`*` and `?` stand for characters, not bytes; a byte that is not UTF-8 counts as one character.

pathspec reads the rules and RE2 matches them, in linear time and bounded memory: rules arrive
from peers, and a backtracking engine needs minutes for one name and the rule `*a*a*a*a*ab`.
What pathspec reads otherwise than git is put to it in words both read alike
(`docs/decisions/0003-ignore-rules.md`).
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Final

import re2  # type: ignore[import-untyped]
from blake3 import blake3
from pathspec import PathSpec
from pathspec.pattern import RegexPattern
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

RULES_BYTES: Final = 1024 * 1024
OWN_DIRECTORY: Final = b".p2psync"
_RULES: Final = 10_000
_RULE_LENGTH: Final = 4096
_WILDCARDS: Final = 4096
"""How many stars, question marks and brackets: each can cost 30 ns per byte of a path."""
_CACHED_DIRECTORIES: Final = 10_000
_TOO_MANY: Final = "the rules are too many or too long to be matched in bounded time and memory"

_END: Final = "\0"
"""Ends the last name in rules and in paths, where no name can hold it.

pathspec lets a rule match whatever is below what it names, and so lets `!a/` take back `a/b`
which another rule ignores. To git a rule is about the path itself.
"""

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # they are raised as well

_NOT_UTF8: Final = dict.fromkeys(range(0xDC80, 0xDD00), "\N{REPLACEMENT CHARACTER}")

_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": " \\t",
    "cntrl": "\\x01-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-.0-~",
    "lower": "a-z",
    "print": " -.0-~",
    "punct": "!-.:-@\\[-`{-~",
    "space": "\\t-\\r ",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


class Rules:
    """The rules of one ignore file; `ignored` is safe to call from several threads.

    digest: 32 bytes that change when the rules do; comments and blank lines are no rules.
    """

    def __init__(self, rules: list[RegexPattern], digest: bytes) -> None:
        """Take rules in their order.

        Raises:
            ValueError: together they are too many to be matched in bounded memory.
        """
        self.digest = digest
        try:
            self._rules = PathSpec(rules, backend="re2") if rules else None
        except re2.error as error:
            raise ValueError(_TOO_MANY) from error
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
        rules: list[RegexPattern] = []
        hasher = blake3()
        wildcards = 0
        for number, raw in enumerate(text.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            try:
                line = _stripped(raw.removesuffix(b"\r").decode())
                if line and not line.startswith("#"):
                    rules.append(_rule(line))
                    hasher.update(line.encode() + b"\n")
                    wildcards += sum(map(line.count, "*?["))
                if len(rules) > _RULES or wildcards > _WILDCARDS:
                    raise ValueError(_TOO_MANY)
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
        if self._rules is None:
            return False
        directory = path.rpartition(b"/")[0]
        if self._ignored_directory(self._rules, directory):
            return True
        if is_directory is None:
            return _decide(self._rules, path, False) or _decide(self._rules, path, True)
        return _decide(self._rules, path, is_directory)

    def _ignored_directory(self, rules: PathSpec[RegexPattern], directory: bytes) -> bool:
        """Say whether a directory or one above it is ignored; remembered for its children."""
        unknown: list[bytes] = []
        while (answer := self._directories.get(directory)) is None:
            unknown.append(directory)
            directory = directory.rpartition(b"/")[0]
        for below in reversed(unknown):
            answer = answer or _decide(rules, below, True)
            if len(self._directories) >= _CACHED_DIRECTORIES:
                self._directories = {b"": False}
            self._directories[below] = answer
        return answer


def _decide(rules: PathSpec[RegexPattern], path: bytes, is_directory: bool) -> bool:
    """Apply the rules to the path alone, as if nothing above it were ignored."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = path.decode(errors="surrogateescape").translate(_NOT_UTF8)
    return rules.match_file(text + (_END + "/" if is_directory else _END), ())


def _stripped(line: str) -> str:
    """Drop trailing blanks, except one that a backslash escapes."""
    bare = line.rstrip(" ")
    backslashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if backslashes % 2 and bare != line else bare


def _rule(line: str) -> RegexPattern:
    """Read one rule as git does; raise ValueError if it can match nothing."""
    if len(line) > _RULE_LENGTH:
        raise ValueError(f"the rule is longer than {_RULE_LENGTH} characters")
    ignores = not line.startswith("!")
    body = line if ignores else line[1:]
    names = body.removeprefix("/").removesuffix("/").split("/")
    if _END in line or any(name in ("", ".", "..") for name in names):
        raise ValueError(f"the rule {line!r} can match nothing")
    classes: list[str] = []
    globs = [_without_brackets(name, classes) for name in names]
    if globs[-1] == "**":
        globs.append("*")  # `a/**` is everything inside a, not a itself
    start = "!/" if body.startswith("/") else "!"  # so that `#a` or `!a` is plain after it
    regex, _ = GitIgnoreSpecPattern.pattern_to_regex(start + "/".join(globs) + _END)
    assert regex is not None
    *texts, _or_below = regex.split(_END)
    end = r"\x00/" if body.endswith("/") else r"\x00"
    filled = "".join(chain.from_iterable(zip(texts, [*classes, end], strict=True)))
    try:
        return RegexPattern(re2.compile(f"(?s){filled}", _OPTIONS), ignores)
    except re2.error as error:
        raise ValueError(f"the rule {line!r} is not understood") from error


def _without_brackets(name: str, classes: list[str]) -> str:
    """Put `_END` where brackets stand, and append what they mean to `classes`.

    pathspec lets a negated bracket match a slash, and takes neither `[:alpha:]` nor a backslash
    inside brackets for what they are.
    """
    if len(name) > 1 and not name.strip("*"):
        return "**"  # git takes `***` for that
    kept = ""
    at = 0
    while at < len(name):
        if name[at] == "[":
            expression, at = _bracket(name, at + 1)
            classes.append(expression)
            kept += _END
            continue
        length = 2 if name[at] == "\\" else 1
        if at + length > len(name):
            raise ValueError("a backslash at the end escapes nothing")
        kept += name[at : at + length]
        at += length
    return kept


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
        items += _range(low, "." if low < "/" < high else high)
        if low < "/" < high:
            items += _range("0", high)
    return f"[{'^/' if negated else ''}{items}]", at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    """Return one character inside brackets, and the place behind it."""
    if text[at : at + 1] == "\\":
        at += 1
    if at >= len(text):
        raise ValueError("a bracket is opened and not closed")
    return text[at], at + 1


def _range(low: str, high: str) -> str:
    """Write a range of characters as inside the brackets of a regular expression."""
    return f"{re.escape(low)}-{re.escape(high)}"


NOTHING: Final = Rules.parse(b"")
