"""Whole directories that get another name: one rename on every disk that allows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2psync.engine.link import BATCH_S, PAGE_S, Batch
from p2psync.engine.moves import DirectoryMover
from p2psync.errors import RootTrouble
from tests.support.replicas import Cluster, cluster


def fill(directory: Path, count: int = 20) -> None:
    """Make a directory with files and a directory in it."""
    (directory / "sub").mkdir(parents=True)
    for number in range(count):
        (directory / f"{number}").write_bytes(os.urandom(1_000))
        (directory / "sub" / f"{number}").write_bytes(os.urandom(1_000))


def sent(made: Cluster) -> int:
    """Return how many bytes of contents were sent so far."""
    return sum(site.replica.provided_bytes for site in made.sites.values())


def history(site_root: Path) -> list[str]:
    """Return the names of the files in the history."""
    found = os.walk(site_root / ".p2psync" / "history")
    return [name for _, _, names in found for name in names]


async def test_rename_economy_of_a_directory(tmp_path: Path) -> None:
    """Everywhere it is the same directory as before, and nothing was displaced."""
    async with cluster(tmp_path, "a", "b", "c", lines="ab bc") as made:
        roots = [site.root for site in made.sites.values()]
        fill(roots[0] / "d")
        (roots[0] / "into").mkdir()
        await made.settled()
        before, inodes = sent(made), [(root / "d").stat().st_ino for root in roots]
        (roots[0] / "d").rename(roots[0] / "into" / "e")

        tree = await made.settled()

        assert "into/e/sub/7" in tree
        assert "d" not in tree
        assert [(root / "into" / "e").stat().st_ino for root in roots] == inodes
        assert sent(made) == before
        assert [history(root) for root in roots] == [[], [], []]


async def test_a_directory_that_changed_too_moves_in_parts(tmp_path: Path) -> None:
    """What is edited in the same breath travels, the rest moves, as whole as can be."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"].root, made.sites["b"].root
        fill(a / "d")
        await made.settled()
        before, inode = sent(made), (b / "d" / "sub").stat().st_ino
        await made.cut("a", "b")
        (a / "d").rename(a / "e")
        (a / "e" / "3").write_bytes(b"edited")
        await made.sites["a"].replica.survey.now()
        made.join("a", "b")

        tree = await made.settled()

        assert tree["e/3"] == b"edited"
        assert (b / "e" / "sub").stat().st_ino == inode
        assert sent(made) == before + len(b"edited")


async def test_what_is_ignored_stays_where_it_is(tmp_path: Path) -> None:
    """A directory with something in it that is none of our business moves in parts."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"].root, made.sites["b"].root
        (a / ".p2psyncignore").write_text("*.o\n")
        fill(a / "d")
        await made.settled()
        (b / "d" / "mine.o").write_bytes(b"built")
        before, inode = sent(made), (b / "d" / "sub").stat().st_ino
        (a / "d").rename(a / "e")
        async with made.within():
            while not (b / "e" / "7").exists() or (b / "d" / "7").exists():
                await made.sites["b"].replica.changed.wait(0.02)

        assert (b / "d" / "mine.o").read_bytes() == b"built"
        assert not (b / "e" / "mine.o").exists()
        assert (b / "e" / "sub").stat().st_ino == inode
        assert sent(made) == before


async def test_a_death_between_the_rename_and_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the next start it is taken over: nothing fetched, deleted, copied or told."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        fill(a.root / "d")
        await made.settled()
        before, inode = sent(made), (b.root / "d").stat().st_ino

        def die(*_: object) -> None:
            raise RootTrouble("unwritable", "dead")

        with monkeypatch.context() as patch:
            patch.setattr(DirectoryMover, "_commit", die)
            (a.root / "d").rename(a.root / "e")
            async with made.within():
                while not b.replica.held:
                    await b.replica.changed.wait(0.02)
            assert (b.root / "e").exists()
            await made.cut("a", "b")
            await b.stop()
        seq = a.replica.stock.index.facts().seq
        await b.start()
        assert b.replica.stock.need() == (0, 0)
        assert b.replica.stock.index.facts().seq == 0
        made.join("a", "b")

        tree = await made.settled()

        assert not [path for path in tree if "conflict" in path or path.startswith("d")]
        assert (b.root / "e").stat().st_ino == inode
        assert sent(made) == before
        assert history(b.root) == []
        assert a.replica.stock.index.facts().seq == seq


def test_a_batch_is_waited_for_while_it_comes_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until its mark; but no longer than a moment after a page, and not beyond a limit."""
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    batch = Batch()
    assert batch.until <= now
    with batch.page():
        now += 3 * PAGE_S  # a slow disk
        assert batch.until > now
    assert batch.until == now + PAGE_S
    while now < 100.0 + BATCH_S:
        assert batch.until > now
        now += PAGE_S / 2
        with batch.page():
            pass
    assert batch.until <= now
    batch.end()
    with batch.page():
        pass
    assert batch.until == now + PAGE_S
