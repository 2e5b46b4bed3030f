"""What one ignore rule means, as git reads it: an expression that RE2 matches in linear time.

pathspec reads the rules and RE2 matches them, in linear time and bounded memory: rules arrive
from peers, and a backtracking engine needs minutes for one name and the rule `*a*a*a*a*ab`.
What pathspec reads otherwise than git is put to it in words both read alike
(`docs/decisions/0003-ignore-rules.md`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

import re2  # type: ignore[import-untyped]
from pathspec import PathSpec
from pathspec.pattern import RegexPattern
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_RULES: Final = 10_000
_WILDCARDS: Final = 4096
"""How many stars, question marks and brackets: each can cost 30 ns per byte of a path."""
_RULE_LENGTH: Final = 4096
_TOO_MANY: Final = "the rules are too many or too long to be matched in bounded time and memory"

_END: Final = "\0"
"""Ends the last name in rules and in paths, where no name can hold it.

pathspec lets a rule match whatever is below what it names, and so lets `!a/` take back `a/b`
which another rule ignores. To git a rule is about the path itself.
"""

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # they are raised as well

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


def matches(rules: Iterable[tuple[int, str]]) -> Callable[[str, bool], bool]:
    """Join rules, each with the number of its line, in their order.

    Returns:
        What says of a path, and whether it is a directory's, whether they ignore it.

    Raises:
        ValueError: with the line's number, a rule that could never match anything; or together
            they are too many to be matched in bounded memory.
    """
    patterns: list[RegexPattern] = []
    wildcards = 0
    for number, line in rules:
        try:
            patterns.append(_rule(line))
            wildcards += sum(map(line.count, "*?["))
            if len(patterns) > _RULES or wildcards > _WILDCARDS:
                raise ValueError(_TOO_MANY)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    try:
        spec = PathSpec(patterns, backend="re2")
    except re2.error as error:
        raise ValueError(_TOO_MANY) from error

    def ignore(path: str, is_directory: bool) -> bool:
        return spec.match_file(path + (_END + "/" if is_directory else _END), ())

    return ignore


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
