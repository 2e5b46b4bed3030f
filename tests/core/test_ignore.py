"""core.ignore: gitignore's meaning, in linear time, and never "ignore nothing" by mistake."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.core.ignore import NOTHING, RULES_BYTES, Rules

TABLE = [
    # rules, path, is_directory, ignored
    ("*.o", "a.o", False, True),
    ("*.o", "x/y/a.o", False, True),
    ("*.o", "a.oo", False, False),
    ("build", "x/build", True, True),
    ("build", "x/build/deep/file", False, True),
    ("build/", "build", False, False),
    ("build/", "build", True, True),
    ("build/", "build", None, True),
    ("build/", "build/x", False, True),
    ("/build", "x/build", True, False),
    ("/build", "build", False, True),
    ("a/b", "x/a/b", False, False),
    ("a/b", "a/b", False, True),
    ("**/a/b", "x/y/a/b", False, True),
    ("**/a", "x/a", False, True),
    ("a/**", "a", True, False),
    ("a/**", "a/b/c", False, True),
    ("a/**/b", "a/b", False, True),
    ("a/**/b", "a/x/y/b", False, True),
    ("a/**/b", "a/x/y/c", False, False),
    ("**", "x", False, True),
    ("**/", "x", False, False),
    ("**/", "x", True, True),
    ("/*", "x", False, True),
    ("a*b*c", "a1b2c", False, True),
    ("a*b*c", "a1c2b", False, False),
    ("a**c", "a/c", False, False),
    ("a?c", "abc", False, True),
    ("a?c", "aéc", False, True),
    ("a?c", "ac", False, False),
    ("[a-c]x", "bx", False, True),
    ("[!a-c]x", "bx", False, False),
    ("[^a-c]x", "dx", False, True),
    ("[]-]x", "]x", False, True),
    ("[a-]x", "-x", False, True),
    ("[[:digit:]_]x", "7x", False, True),
    (r"\#x", "#x", False, True),
    (r"\!x", "!x", False, True),
    ("# a comment", "# a comment", False, False),
    ("*\n!!a", "!a", False, False),
    ("*\n!!a", "a", False, True),
    ("*\n!#a", "#a", False, False),
    ("a ", "a", False, True),
    ("a\t", "a", False, False),
    ("a\t", "a\t", False, True),
    (r"a\ ", "a ", False, True),
    ("a\r\nb\r\n", "b", False, True),
    ("*.o\n!keep.o", "keep.o", False, False),
    ("!keep.o\n*.o", "keep.o", False, True),
    ("dir/\n!dir/keep", "dir/keep", False, True),
    ("dir/*\n!dir/keep", "dir/keep", False, False),
    ("*\n!*/\n!*.txt", "dir/a.txt", False, False),
    ("*\n!*/\n!*.txt", "dir/a.o", False, True),
    ("*\n!/a", "a/b", False, True),
    ("b/\n!a/", "a/b", True, True),
    ("b/\n!a/", "a/b/c", False, True),
    ("***", "x/y", False, True),
    ("***/a", "x/y/a", False, True),
    ("a/***/b", "a/b", False, True),
    ("x[!a]y", "x/y", False, False),
    ("x[+-9]y", "x/y", False, False),
    ("x[+-9]y", "x0y", False, True),
    ("x[[:punct:]]y", "x/y", False, False),
    (r"[\]a-]x", "]x", False, True),
    (r"[a\-c]x", "bx", False, False),
    ("a\nb", "x\ny", False, False),
    ("*.o", "x\ny/a.o", False, True),
    ("x?y", "x\ny", False, True),
    ("\ufeffa", "a", False, True),
    (r"\*", "*", False, True),
    (r"\*", "x", False, False),
]


@pytest.mark.parametrize(("rules", "path", "is_directory", "ignored"), TABLE)
def test_table(rules: str, path: str, is_directory: bool | None, ignored: bool) -> None:
    """Each rule means what git's documentation says it means."""
    assert Rules.parse(rules.encode()).ignored(path.encode(), is_directory) is ignored


@pytest.mark.parametrize("path", [b".p2psync", b".p2psync/history/x"])
def test_g06_our_own_directory_is_always_ignored(path: bytes) -> None:
    """No rule makes the agent look into its own directory."""
    assert NOTHING.ignored(path)
    assert Rules.parse(b"!.p2psync\n!*").ignored(path)


def test_what_looks_like_ours_is_not_ignored() -> None:
    """Only the root's own directory is ours; the root itself is never ignored."""
    for path in (b"", b".p2psyncignore", b".p2psync2", b"a/.p2psync"):
        assert not NOTHING.ignored(path)
    assert not Rules.parse(b"*").ignored(b"")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"a\n\xff\n", "line 2: is not UTF-8"),
        (b"a\n\n!\n", "line 3: the rule '!' can match nothing"),
        (b"/", "line 1: the rule '/' can match nothing"),
        (b"a//b", "line 1: the rule 'a//b' can match nothing"),
        (b"../a", "line 1: the rule '../a' can match nothing"),
        (b"x[ab", "line 1: a bracket is opened and not closed"),
        (b"[z-a]", "line 1: the range z-a is empty"),
        (b"[[:nope:]]", r"line 1: there is no class of characters \[:nope:\]"),
        (b"a\n\0", "line 2: the rule .* can match nothing"),
        (b"a\\", "line 1: a backslash at the end escapes nothing"),
        (b"[", "line 1: a bracket is opened and not closed"),
        (b"[a-", "line 1: a bracket is opened and not closed"),
        (b"[a\\", "line 1: a bracket is opened and not closed"),
        (b"#" * (RULES_BYTES + 1), "the rules are longer than"),
    ],
)
def test_q05_what_cannot_match_is_refused(text: bytes, sentence: str) -> None:
    """A file with a line that can ignore nothing is refused with the line's number."""
    with pytest.raises(ValueError, match=sentence):
        Rules.parse(text)


def test_f12_a_name_that_is_not_utf8_is_matched() -> None:
    """A byte that is not UTF-8 counts as one character, and is no reason to fail."""
    rules = Rules.parse(b"a?c\n*.bak")
    assert rules.ignored(b"a\xffc")
    assert rules.ignored(b"d\xff/x.bak")
    assert not rules.ignored(b"\xff")
    assert Rules.parse(b"a??b").ignored(b"a\xe2\x82b")
    assert Rules.parse(b"[!a]").ignored(b"\xff")


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules",
    [
        b"*a" * 6 + b"b",
        b"*a" * 120 + b"b",
        b"**/a/" * 200 + b"b",
        b"[a-z]*" * 120 + b"?b",
        b"x" * 4096,
        b"*" * 4095 + b"b",
        b"*?" * 2047 + b"b",
        b"*a" + b"?" * 4093 + b"b",
        b"\n".join(b"*a" + b"?" * length + b"b" for length in range(88)),
        b"\n".join(b"*.suffix%d" % number for number in range(3000)),
    ],
)
def test_q07_no_rule_can_stall_a_scan(rules: bytes) -> None:
    """Rules made to defeat a backtracking matcher are decided at once, and decided right."""
    parsed = Rules.parse(rules + b"\nhit")
    started = time.thread_time()
    assert not parsed.ignored(b"a" * 255)
    assert not parsed.ignored(b"a/" * 300 + b"a")
    assert parsed.ignored(b"ac" * 120 + b"/hit")
    assert time.thread_time() - started < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (b"x" * (RULES_BYTES - 1), "line 1: the rule is longer"),
        (b"*" * (RULES_BYTES - 1) + b"b", "line 1: the rule is longer"),
        (b"*?" * (RULES_BYTES // 2 - 1) + b"b", "line 1: the rule is longer"),
        (b"a\n" * (RULES_BYTES // 2), "line 10001: the rules are too many"),
        (b"*a*b\n" * (RULES_BYTES // 5), "line 2049: the rules are too many"),
        (b"\n".join([b"x%d" % number + b"y" * 4000 for number in range(260)]), "too many"),
    ],
)
def test_q07_rules_beyond_all_measure_are_refused(rules: bytes, sentence: str) -> None:
    """What could not be matched in bounded time and memory is refused, and soon."""
    started = time.thread_time()
    with pytest.raises(ValueError, match=sentence):
        Rules.parse(rules)
    assert time.thread_time() - started < 5.0


def test_q08_the_digest_changes_with_the_rules_alone() -> None:
    """Comments and blank lines change nothing; a rule, or the order of rules, does."""
    assert Rules.parse(b"a\nb").digest == Rules.parse(b"# why\n\na \r\nb\n").digest
    digests = {Rules.parse(text).digest for text in (b"", b"a", b"a\nb", b"b\na", b"ab", b"!a")}
    assert len(digests) == 6
    assert NOTHING.digest == Rules.parse(b"# nothing").digest


def test_q09_nothing_below_an_ignored_directory_comes_back() -> None:
    """A child taken back in below an ignored directory stays ignored, whoever asks first."""
    rules = Rules.parse(b"cache/\n!cache/keep/\n!cache/keep/x")
    assert rules.ignored(b"cache/keep/x")
    assert rules.ignored(b"cache/keep", True)
    assert rules.ignored(b"cache", True)


def test_the_memory_of_directories_is_bounded() -> None:
    """Asking about very many directories forgets the older answers and stays right."""
    rules = Rules.parse(b"d7/")
    for number in range(12_000):
        assert rules.ignored(b"d%d/x" % number) is (number == 7)
    assert len(rules._directories) <= 10_000


FORGETFUL = r"!?/?[^*?\[\\]*[^*?\[\\/]\*\*+(/|$)"
names = st.sampled_from(
    ["a", "b", "ab", "a.b", "aab", "é", "-", "]", "#a", "!b", "a b", "a\nb"]
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
pieces = st.sampled_from(
    [
        *("a", "b", ".b", "-", " ", "*", "?", "**", "***", "/", "/", "/", "!", "!", "#", "\\#"),
        *("[ab]", "[!a]", "[a-c]", "[[:punct:]]", "[\\]]", "[a\\-c]"),
    ]
)
lines = st.lists(st.lists(pieces, min_size=1, max_size=6).map("".join), min_size=1, max_size=4)


def understood(rules: list[str]) -> Rules | None:
    """The rules, or None if one of them could match nothing."""
    try:
        return Rules.parse("\n".join(rules).encode())
    except ValueError:
        return None


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty git repository, to ask git itself."""
    if shutil.which("git") is None:
        pytest.skip("needs git, which is what the rules are compared with")
    where = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", where], check=True)
    return where


def git_ignores(repository: Path, asked: list[str]) -> set[str]:
    """The paths git ignores; what stands on disk is a directory, what does not is a file."""
    answer = subprocess.run(
        ["git", "-C", repository, "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(asked).encode(),
        capture_output=True,
        check=False,
    )
    return set(answer.stdout.decode().split("\0"))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(rules=lines, asked=st.lists(paths, min_size=1, max_size=8, unique=True))
def test_git_agrees(repository: Path, rules: list[str], asked: list[str]) -> None:
    """For ASCII names `git check-ignore` gives the same answers as we do."""
    asked = [path for path in asked if path.isascii()]
    # Git forgets what stands before the first star: to it `a**/` begins with two stars.
    rules = [rule for rule in rules if rule.strip() and not re.match(FORGETFUL, rule)]
    ours = understood(rules)
    if ours is None or not asked:
        return
    (repository / ".gitignore").write_text("\n".join(rules) + "\n")
    files = git_ignores(repository, asked)
    for path in asked:
        (repository / path).mkdir(parents=True, exist_ok=True)
    directories = git_ignores(repository, asked)
    for path in asked:
        shutil.rmtree(repository / path.partition("/")[0], ignore_errors=True)
    for path in asked:
        assert ours.ignored(path.encode(), False) is (path in files), path
        assert ours.ignored(path.encode(), True) is (path in directories), path
