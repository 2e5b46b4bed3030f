"""Tests of `core.paths`: the border every path crosses once."""

from __future__ import annotations

import pytest

from p2psync.core import paths

REFUSED = {
    "empty": b"",
    "absolute": b"/etc/passwd",
    "two slashes first": b"//x",
    "dot": b".",
    "dot inside": b"a/./b",
    "dot dot": b"..",
    "dot dot first": b"../x",
    "dot dot inside": b"a/../../x",
    "empty component": b"a//b",
    "trailing slash": b"a/",
    "NUL": b"a\0b",
    "long component": b"x" * 256,
    "long component inside": b"a/" + b"x" * 256 + b"/b",
    "long path": b"/".join([b"x" * 200] * 164),
    "deep path": b"/".join([b"x"] * 1_001),
    "reserved": b".p2psync",
    "reserved above": b".p2psync/staging/x",
    "reserved in capitals": b".P2PSync/x",
    "reserved with a zero-width joiner": ".p2p\u200csync/x".encode(),
    "reserved after a zero-width joiner": "\u200d.p2psync".encode(),
    "reserved in full width": "\uff0ep2psync".encode(),
}

ACCEPTED = [
    b"a",
    b"a/b/c",
    b"...",
    b"a\\b",
    b"C:\\x",
    b"a:b",
    b"CON",
    b"x\n\x1b[31m",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b".p2psyncignore",
    b"a/.p2psync/b",
    b"x" * 255,
    b"/".join([b"x"] * 1_000),
]


@pytest.mark.parametrize("what", REFUSED)
def test_t16_t17_g06_g07_refused(what: str) -> None:
    """A path that could leave the root, or reach the agent's own files, is refused."""
    with pytest.raises(ValueError, match=r"the |a "):
        paths.check(REFUSED[what])


@pytest.mark.parametrize("path", ACCEPTED)
def test_t16_accepted(path: bytes) -> None:
    """Every other byte string is a name some user may have on a POSIX disk."""
    assert paths.check(path) == path


def test_parts() -> None:
    """Taking a path apart and putting it together again are inverse."""
    assert paths.parent(b"a/b/c") == b"a/b"
    assert paths.parent(b"a") == b""
    assert paths.name(b"a/b/c") == b"c"
    assert paths.name(b"a") == b"a"
    for path in (b"a", b"a/b", b"a/b/c"):
        assert paths.join(paths.parent(path), paths.name(path)) == path


def test_ancestors() -> None:
    """The nearest directory comes first, the root is not among them."""
    assert paths.ancestors(b"a/b/c") == [b"a/b", b"a"]
    assert paths.ancestors(b"a") == []


def test_is_below() -> None:
    """Below is strict, and a matter of components, not of letters."""
    assert paths.is_below(b"a/b", b"a")
    assert not paths.is_below(b"ab", b"a")
    assert not paths.is_below(b"a", b"a")
    assert paths.is_below(b"a", b"")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"plain/\xc3\xa4.txt", "plain/ä.txt"),
        (b"a\x1b[2Jb", r"a\x1b[2Jb"),
        (b"line\nbreak", r"line\x0abreak"),
        ("exe\u202etxt.scr".encode(), r"exe\u202etxt.scr"),
        (b"\xff", r"\xff"),
        (b"back\\slash", r"back\\slash"),
        ("\U000e0041".encode(), r"\U000e0041"),
        (b"\x80", r"\x80"),
    ],
)
def test_printable(path: bytes, shown: str) -> None:
    """Nothing in a name acts on a terminal, and no two names look alike through escaping."""
    assert paths.printable(path) == shown
