"""A path is checked once, where it enters; everything inside may rely on what is checked here.

A path is bytes, relative to the root, `/`-separated and never empty; the root itself is `b""`
where a directory is asked for. Any other byte is data: a backslash, a colon or a newline is a
legal part of a POSIX name, and names that are not UTF-8 exist. They are only made harmless
where a person sees them (`printable`).
"""

from __future__ import annotations

import unicodedata
from typing import Final

Path = bytes

NAME_BYTES: Final = 255
PATH_BYTES: Final = 32 * 1024
PATH_DEPTH: Final = 1_000
RESERVED: Final = b".p2psync"
"""The first component under which the agent keeps its own files in a root."""

_RESERVED_TEXT: Final = RESERVED.decode()
# Only a name that begins with a dot or with a multi-byte character that some filesystems
# ignore can be a twin of the reserved one.
_TWIN_STARTS: Final = frozenset(b".\xcc\xcd\xd8\xe1\xe2\xef\xf0")
# Characters that a terminal acts on instead of showing: controls, bidi overrides, separators.
_UNPRINTABLE: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def check(path: bytes) -> Path:
    """Return the path if it names a place below the root that may be synced.

    Raises:
        ValueError: with the reason, for a path no well-behaved peer or filesystem gives.
    """
    if not path:
        raise ValueError("the path is empty")
    if len(path) > PATH_BYTES:
        raise ValueError(f"the path is longer than {PATH_BYTES} bytes")
    if b"\0" in path:
        raise ValueError("the path holds a NUL byte")
    components = path.split(b"/")
    if len(components) > PATH_DEPTH:
        raise ValueError(f"the path is deeper than {PATH_DEPTH} directories")
    if b"" in components:
        raise ValueError("the path is absolute, or has an empty component")
    if b"." in components or b".." in components:
        raise ValueError("the path has a component . or ..")
    if len(path) > NAME_BYTES and max(map(len, components)) > NAME_BYTES:
        raise ValueError(f"a component is longer than {NAME_BYTES} bytes")
    if path[0] in _TWIN_STARTS and _is_reserved(components[0]):
        raise ValueError("the name is reserved for p2psync")
    return path


def _is_reserved(component: bytes) -> bool:
    """Say whether some filesystem might take the name for the reserved one.

    Some fold case, some ignore zero-width characters (the family of git's CVE-2014-9390).
    """
    text = unicodedata.normalize("NFKC", component.decode("utf-8", "replace"))
    seen = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Mn", "Cn"))
    return seen.casefold() == _RESERVED_TEXT


def parent(path: Path) -> Path:
    """Return the directory that holds the path; `b""` for the root."""
    return path.rpartition(b"/")[0]


def name(path: Path) -> bytes:
    """Return the last component."""
    return path.rpartition(b"/")[2]


def join(directory: Path, component: bytes) -> Path:
    """Return the path of a name in a directory, `b""` being the root."""
    return directory + b"/" + component if directory else component


def ancestors(path: Path) -> list[Path]:
    """Return the directories above a path, the nearest first, without the root."""
    above = []
    end = path.rfind(b"/")
    while end > 0:
        path = path[:end]
        above.append(path)
        end = path.rfind(b"/")
    return above


def is_below(path: Path, directory: Path) -> bool:
    """Say whether the path is strictly below the directory, `b""` being the root."""
    return path.startswith(directory + b"/") if directory else bool(path)


def printable(path: bytes) -> str:
    r"""Return the path for a person: nothing in it acts on a terminal or hides its order.

    Control and format characters (bidi overrides among them) become `\x1b` or `\u202e`,
    bytes that are not UTF-8 `\xff`, and a backslash is doubled so that nothing is ambiguous.
    """
    text = path.decode("utf-8", "surrogateescape")
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character == "\\":
        return "\\\\"
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
