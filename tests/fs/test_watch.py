"""fs.watch, what every way to watch promises: hints come, survive, and stay inside the root."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from pathlib import Path

import pytest

from p2psync.fs.watch import Hint, Watching, elsewhere, hint, linux
from tests.support import looking
from tests.support.looking import unprivileged
from tests.support.require import require
from tests.support.watching import TIMEOUT_S, Process, reading, touch

public = looking.public

WAYS = {"linux": linux.LinuxWatching, "elsewhere": elsewhere.WatchfilesWatching}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The name of the module that watches."""
    return str(request.param)


@pytest.fixture
def watching(way: str) -> Watching:
    """The watchers under test."""
    return WAYS[way]()


async def test_the_first_hint_is_everything(watching: Watching, tmp_path: Path) -> None:
    """What changed before the watches existed is found by the scan the first hint asks for."""
    async with reading(watching, tmp_path) as it:
        assert it.seen == [Hint(everything=True)]


async def test_a_file_is_hinted_at(watching: Watching, tmp_path: Path) -> None:
    """A write, a rename (both names) and a deletion lead to where they were."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    async with reading(watching, tmp_path) as it:
        (tmp_path / "a" / "b" / "x").write_bytes(b"x")
        await it.at(b"a/b/x")
        (tmp_path / "a" / "b" / "x").rename(tmp_path / "a" / "x")
        await it.at(b"a/x", b"a/b/x")
        (tmp_path / "a" / "x").unlink()
        await it.at(b"a/x")
        (tmp_path / "y").touch()
        await it.at(b"y")
        assert not any(hint.everything or hint.rules for hint in it.seen[1:])


async def test_a_directory_hints_at_all_below(watching: Watching, tmp_path: Path) -> None:
    """Of what is moved in or made quickly, everything is looked at, and what is removed."""
    (tmp_path / "outside" / "c" / "d").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    async with reading(watching, tmp_path / "root") as it:
        (tmp_path / "outside").rename(tmp_path / "root" / "in")
        await it.at(b"in", b"in/x", b"in/c/x", b"in/c/d/x")
        shutil.rmtree(tmp_path / "root" / "in")
        await it.at(b"in")


@pytest.mark.slow
async def test_nothing_in_new_directories_is_missed(watching: Watching, tmp_path: Path) -> None:
    """Files made in fresh directories before those were watched are hinted at all the same."""
    async with reading(watching, tmp_path) as it:
        for number in range(200):
            (tmp_path / str(number) / "a" / "b" / "c").mkdir(parents=True)
            (tmp_path / str(number) / "a" / "b" / "c" / "x").touch()
        await it.at(*(f"{number}/a/b/c/x".encode() for number in range(200)))
        for number in range(200):
            (tmp_path / str(number) / "a" / "b" / "c" / "y").touch()
        await it.at(*(f"{number}/a/b/c/y".encode() for number in range(200)))


async def test_r04_our_own_directory_is_not_hinted_at(
    watching: Watching, tmp_path: Path
) -> None:
    """Staging and history are nobody's business."""
    (tmp_path / ".p2psync" / "staging").mkdir(parents=True)
    async with reading(watching, tmp_path) as it:
        (tmp_path / ".p2psync" / "staging" / "x").touch()
        (tmp_path / ".p2psync" / "y").mkdir()
        seen = await it.quiet_until(tmp_path / "z")
        assert not any(named(hint) - {b"", b"z"} for hint in seen)


async def test_the_ignore_file_is_told_apart(watching: Watching, tmp_path: Path) -> None:
    """A hint says when the rules were touched, and only those of the root."""
    (tmp_path / "d").mkdir()
    async with reading(watching, tmp_path) as it:
        (tmp_path / "d" / ".p2psyncignore").touch()
        await it.at(b"d/.p2psyncignore")
        assert not any(hint.rules for hint in it.seen)
        (tmp_path / ".p2psyncignore").touch()
        assert (await it.until(lambda hint: hint.rules)).covers(b".p2psyncignore")


async def test_h04_nothing_outside_is_hinted_at(watching: Watching, tmp_path: Path) -> None:
    """What happens behind a link out of the root is none of our business."""
    (tmp_path / "outside" / "d").mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    async with reading(watching, root) as it:
        (tmp_path / "outside" / "x").touch()
        (tmp_path / "outside" / "d" / "y").touch()
        seen = await it.quiet_until(root / "z")
        assert not any(named(hint) - {b"", b"z"} for hint in seen)


async def test_h01_a_link_inside_hides_nothing(watching: Watching, tmp_path: Path) -> None:
    """What changes in a directory with links to it is hinted at where it really is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "z").symlink_to("real")
    async with reading(watching, tmp_path) as it:
        (tmp_path / "real" / "x").touch()
        await it.at(b"real/x")
        (tmp_path / "a" / "y").touch()
        await it.at(b"real/y")
        assert not any(named(hint) & {b"a", b"z", b"a/y"} for hint in it.seen)


async def test_h14_the_root_may_be_a_link(watching: Watching, tmp_path: Path) -> None:
    """A root reached through a link is watched where it is."""
    (tmp_path / "real" / "d").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    async with reading(watching, tmp_path / "link") as it:
        (tmp_path / "real" / "d" / "x").touch()
        await it.at(b"d/x")


@pytest.mark.slow
async def test_f12_a_name_that_is_not_utf8(watching: Watching, tmp_path: Path) -> None:
    """It is hinted at, and so is the next change."""
    async with reading(watching, tmp_path) as it:
        touch(bytes(tmp_path) + b"/caf\xe9")
        await it.at(b"caf\xe9")
        if it.watcher.state != "watching":
            await it.until(lambda _: it.watcher.state == "watching")
        (tmp_path / "x").touch()
        await it.at(b"x")


@pytest.mark.slow
async def test_i02_an_unreadable_directory(watching: Watching, public: Path) -> None:
    """All the others are watched, those made later too."""
    names = [f"d{number}" for number in range(10)]
    for name in names:
        (public / name).mkdir()
    (public / "d3").chmod(0)
    with unprivileged():
        context = reading(watching, public)
        it = await context.__aenter__()
    try:
        for name in names:
            (public / name / "x").touch()
        await it.at(*(f"{name}/x".encode() for name in names if name != "d3"))
        (public / "new").mkdir()
        await it.at(b"new")
        (public / "new" / "x").touch()
        await it.at(b"new/x")
    finally:
        await context.__aexit__(None, None, None)


@pytest.mark.slow
async def test_j03_the_root_is_replaced(watching: Watching, tmp_path: Path) -> None:
    """Another directory in the root's place is noticed, told, and watched."""
    root = tmp_path / "root"
    root.mkdir()
    async with reading(watching, root) as it:
        root.rename(tmp_path / "old")
        await it.until(lambda _: it.watcher.state.startswith("polling: "))
        root.mkdir()
        await it.until(lambda hint: hint.everything and it.watcher.state == "watching")
        (root / "x").touch()
        await it.at(b"x")


@pytest.mark.slow
async def test_j03_a_root_that_was_opened_anew(watching: Watching, tmp_path: Path) -> None:
    """What is above a root is not watched: who opens it anew has it watched where it is now."""
    root = tmp_path / "above" / "root"
    root.mkdir(parents=True)
    async with reading(watching, root) as it:
        (tmp_path / "above").rename(tmp_path / "old")
        root.mkdir(parents=True)
        it.watcher.renew()
        await it.everywhere()
        if it.watcher.state != "watching":
            await it.until(lambda _: it.watcher.state == "watching")
        (root / "x").touch()
        await it.at(b"x")


async def test_j02_a_root_that_is_missing(watching: Watching, tmp_path: Path) -> None:
    """Without a root the watcher says why, hints at everything, and tries again."""
    stop = asyncio.Event()
    watcher = watching.watcher(bytes(tmp_path / "none"))
    assert watcher.state == "polling: not started"
    async with asyncio.timeout(TIMEOUT_S), contextlib.aclosing(watcher.hints(stop)) as hints:
        async for hint in hints:
            assert hint == Hint(everything=True)
            if watcher.state == "watching":
                break
            assert "No such file" in watcher.state
            (tmp_path / "none").mkdir()


async def test_a_slow_reader_gets_one_hint(way: str, tmp_path: Path) -> None:
    """Hints that nobody read are joined."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with reading(WAYS[way](), tmp_path) as it, reading(WAYS[way](), tmp_path) as other:
        for name in ("a", "b"):
            (tmp_path / name / "x").touch()
            await other.at(f"{name}/x".encode())
        await it.at(b"a/x", b"b/x")
        assert len(it.seen) <= 3


@pytest.mark.slow
def test_i11_a_queue_that_overflows(way: str, tmp_path: Path) -> None:
    """Events were lost while the process stood still: everything is hinted at."""
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    with Process(way, tmp_path) as watcher:
        hints = watcher.hints()
        assert next(hints)["state"] == "watching"
        watcher.process.send_signal(signal.SIGSTOP)
        for number in range(20_000):
            (tmp_path / str(number % 20) / str(number)).touch()
        watcher.process.send_signal(signal.SIGCONT)
        assert any(hint["everything"] and hint["state"] == "watching" for hint in hints)
        (tmp_path / "3" / "new").touch()
        assert any({"3", "3/new"}.intersection(hint["paths"]) for hint in hints)  # type: ignore[call-overload]


@pytest.mark.slow
def test_i10_no_watches_left(way: str, tmp_path: Path) -> None:
    """Where the system gives no more watches the folder is polled, and it says why."""
    require("userns")
    for number in range(20):
        (tmp_path / str(number)).mkdir()
    limit = 'echo 5 > /proc/sys/user/max_inotify_watches && exec "$@"'
    with Process(way, tmp_path, "unshare", "-U", "-r", "sh", "-c", limit, "sh") as watcher:
        hint = next(watcher.hints())
        assert hint["everything"]
        assert str(hint["state"]).startswith("polling: ")
        assert "limit" in str(hint["state"])


def named(hint: Hint) -> set[bytes]:
    """All paths a hint names."""
    return hint.paths | hint.directories | hint.trees


# ---------------------------------------------------------------------- hints themselves


def test_hints_are_bounded() -> None:
    """Very many paths are their directories, very many directories everything."""
    files = Hint({b"d/%d" % number for number in range(hint.HINTED_PATHS)}, rules=True)
    files.join(Hint({b"e/x"}))
    assert files == Hint(directories={b"d", b"e"}, rules=True)
    many = Hint(directories={b"%d" % n for n in range(hint.HINTED_DIRECTORIES)})
    many.join(Hint({b"x"}))
    assert not many.everything
    many.join(Hint(trees={b"t"}, rules=True))
    assert many == Hint(everything=True, rules=True)


def test_a_hint_is_followed_once() -> None:
    """What lies in a directory that is looked at whole is not looked at once more."""
    both = Hint({b"a/b/x", b"c/x", b"c/d/x", b"y"}, {b"c", b"a/b"}, {b"a", b"a/b/c"})
    assert both.narrowed() == Hint({b"c/d/x", b"y"}, {b"c"}, {b"a"})
    assert both.covers(b"a/z/x")
    assert both.covers(b"c/z")
    assert not both.covers(b"c/z/x")
    assert not Hint()
    assert Hint(rules=True)
