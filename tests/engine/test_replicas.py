"""Replicas become and stay equal: the main job, without a network."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from p2psync.core.entry import Entry, Kind, Value
from p2psync.engine.stock import remove_index
from tests.support.replicas import Cluster, cluster


def content_bytes_sent(made: Cluster) -> int:
    """Return how many bytes of file contents all sites provided so far."""
    return sum(site.replica.provided_bytes for site in made.sites.values())


async def test_convergence_of_two_with_files_directories_and_links(tmp_path: Path) -> None:
    """Whatever is made on one side stands on the other: files of all sizes, links, modes."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a = made.sites["a"].root
        (a / "empty").write_bytes(b"")
        (a / "deep/er").mkdir(parents=True)
        (a / "deep/er/note.txt").write_text("hello")
        (a / "large").write_bytes(os.urandom(3_000_000))
        (a / "link").symlink_to("deep/er")
        (a / "run.sh").write_text("#!/bin/sh\n")
        (a / "run.sh").chmod(0o755)
        (a / "nothing inside").mkdir()

        tree = await made.settled()

        assert set(tree) >= {"deep/er/note.txt", "large", "link", "nothing inside"}
        b = made.sites["b"].root
        assert os.access(b / "run.sh", os.X_OK)
        assert (b / "large").stat().st_mtime_ns == (a / "large").stat().st_mtime_ns


async def test_edits_and_deletes_go_both_ways(tmp_path: Path) -> None:
    """An edit on either side arrives; a delete that saw the file removes it."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"].root, made.sites["b"].root
        (a / "x").write_text("1")
        (a / "y").write_text("1")
        await made.settled()
        (b / "x").write_text("2, from b")
        (b / "y").unlink()

        assert await made.settled() == {"x": b"2, from b"}
        assert not (a / "y").exists()


async def test_conflict_exactness(tmp_path: Path) -> None:
    """Three concurrent contents give one winner and two copies, the same everywhere (P01)."""
    async with cluster(tmp_path, "a", "b", "c") as made:
        for name, site in made.sites.items():
            (site.root / "f.txt").write_text(name)
            await site.replica.survey.now()
        for line in ("ab", "bc", "ac"):
            made.join(*line)

        tree = await made.settled()

        assert sorted(tree.values()) == [b"a", b"b", b"c"]
        assert "f.txt" in tree


async def test_c03_equal_edits_are_no_conflict(tmp_path: Path) -> None:
    """The same content made on both sides is one file."""
    async with cluster(tmp_path, "a", "b") as made:
        for site in made.sites.values():
            (site.root / "f").write_text("same")
            await site.replica.survey.now()
        made.join("a", "b")

        assert await made.settled() == {"f": b"same"}


async def test_c01_edit_beats_delete(tmp_path: Path) -> None:
    """A delete that did not see the edit loses."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        (a.root / "f").write_text("1")
        await made.settled()
        await made.cut("a", "b")
        (a.root / "f").unlink()
        (b.root / "f").write_text("2")
        await a.replica.survey.now()
        await b.replica.survey.now()
        made.join("a", "b")

        assert await made.settled() == {"f": b"2"}


async def test_rename_economy(tmp_path: Path) -> None:
    """Renaming and moving, of files and directories, moves no content (E01, E02, E09)."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a = made.sites["a"].root
        (a / "d").mkdir()
        for number in range(20):
            (a / f"d/{number}").write_bytes(os.urandom(1_000))
        (a / "big").write_bytes(os.urandom(400_000))
        await made.settled()
        before = content_bytes_sent(made)
        (a / "d").rename(a / "e")
        (a / "big").rename(a / "e" / "bigger")

        tree = await made.settled()

        assert "e/bigger" in tree
        assert "d" not in tree
        assert content_bytes_sent(made) == before


async def test_only_missing_chunks_travel(tmp_path: Path) -> None:
    """Bytes put in front of a large file cost about their own size."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a = made.sites["a"].root
        old = os.urandom(8_000_000)
        (a / "film").write_bytes(old)
        await made.settled()
        before = content_bytes_sent(made)
        (a / "film").write_bytes(os.urandom(100_000) + old)
        await made.settled()

        assert content_bytes_sent(made) - before < 1_000_000


async def test_what_came_whole_goes_on_in_chunks(tmp_path: Path) -> None:
    """A file of 400 KB comes whole; of its next version only what is new travels."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a = made.sites["a"].root
        old = os.urandom(400_000)
        (a / "page").write_bytes(old)
        await made.settled()
        assert content_bytes_sent(made) == len(old)
        (a / "page").write_bytes(old[:10] + b"more" + old[10:])
        await made.settled()

        assert content_bytes_sent(made) - len(old) < len(old) - 64_000


async def test_durable_before_told_the_disk_is_never_ahead_of_the_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a peer told is durable before the first of it is put in place."""
    async with cluster(tmp_path, "a") as made:
        replica = made.sites["a"].replica
        stock = replica.stock
        pending: list[bool] = []
        make = stock.root.make_directory

        def looked(path: bytes) -> Any:
            pending.append(stock.index.unsettled)
            return make(path)

        def take_and_apply() -> list[bytes]:
            draft = stock.draft()
            value = Value(Kind.DIRECTORY, b"", 0, b"", 1, False, 0, 1, (9, 1))
            draft.take(b"d", Entry({9: 1}, {(9, 1): value}))
            with stock.index.transaction(durable=False):
                stock.index.write(draft.finish())
            assert stock.index.unsettled
            return stock.apply(dict(stock.index.needed(limit=9)), {}, {}).done

        monkeypatch.setattr(stock.root, "make_directory", looked)
        assert await replica.worker(take_and_apply) == [b"d"]
        assert pending == [False]


@pytest.mark.parametrize("lines", ["ab bc cd", "ab bc cd da"], ids=["chain", "ring"])
async def test_p02_four_in_a_chain_and_a_ring(tmp_path: Path, lines: str) -> None:
    """Changes, deletes and conflicts are relayed through replicas in between."""
    async with cluster(tmp_path, "a", "b", "c", "d", lines=lines) as made:
        a, d = made.sites["a"].root, made.sites["d"].root
        (a / "from a").write_text("a")
        (d / "from d").write_bytes(os.urandom(300_000))
        (d / "both").write_text("d")
        (a / "both").write_text("a")
        tree = await made.settled()
        assert len(tree) == 4
        (a / "from d").unlink()

        tree = await made.settled()

        assert "from d" not in tree
        assert "from a" in tree


async def test_restart_keeps_what_is_known(tmp_path: Path) -> None:
    """What changed while a replica was down is found; deletes of that time are deletes."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        b = made.sites["b"]
        for name in ("keep", "gone", "edited"):
            (made.sites["a"].root / name).write_text("1")
        await made.settled()
        await made.cut("a", "b")
        await b.stop()
        (b.root / "gone").unlink()
        (b.root / "edited").write_text("2")
        await b.start()
        made.join("a", "b")

        assert await made.settled() == {"keep": b"1", "edited": b"2"}


async def test_m01_a_lost_index_deletes_nothing(tmp_path: Path) -> None:
    """A new database means safe mode: missing is fetched, present is adopted by hash."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        b = made.sites["b"]
        for name in ("one", "two"):
            (made.sites["a"].root / name).write_text(name)
        await made.settled()
        await made.cut("a", "b")
        await b.stop()
        remove_index(b.record, tmp_path / "indexes")
        (b.root / "one").unlink()
        before = content_bytes_sent(made)
        await b.start()
        made.join("a", "b")

        assert await made.settled() == {"one": b"one", "two": b"two"}
        assert content_bytes_sent(made) - before == len("one")


async def test_p05_joining_with_equal_files_moves_nothing(tmp_path: Path) -> None:
    """Equal contents are adopted, different ones become conflict copies, nothing is lost."""
    async with cluster(tmp_path, "a", "b") as made:
        for site in made.sites.values():
            (site.root / "same").write_text("same")
            (site.root / "other").write_text(site.name)
        await made.sites["a"].replica.survey.now()
        made.join("a", "b")
        tree = await made.settled()

        assert tree["same"] == b"same"
        assert sorted(tree.values()) == [b"a", b"b", b"same"]
        assert content_bytes_sent(made) == 2


async def test_a_burst_is_shown_all_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small checkout (new, changed, deleted files) is staged whole before any is visible."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        for number in range(10):
            (a.root / f"old{number}").write_text(str(number))
        await made.settled()
        batches: list[set[bytes]] = []
        apply = b.replica.apply

        async def recorded(*args: Any) -> Any:
            batches.append(set(args[0]))
            return await apply(*args)

        monkeypatch.setattr(b.replica, "apply", recorded)
        await made.cut("a", "b")
        (a.root / "src").mkdir()
        for number in range(10):
            (a.root / f"old{number}").unlink()
            (a.root / f"src/new{number}").write_text(f"new {number}")
        await a.replica.survey.now()
        made.join("a", "b")
        await made.settled()

        assert len(batches) == 1
        assert {b"old0", b"src", b"src/new0"} <= batches[0]


async def test_silence(tmp_path: Path) -> None:
    """Once equal, nobody says or writes anything."""
    async with cluster(tmp_path, "a", "b", "c", lines="ab bc ca") as made:
        (made.sites["a"].root / "f").write_text("1")
        await made.settled()
        await asyncio.sleep(0.5)  # acknowledgements of acknowledgements
        before = {name: site.replica.messages for name, site in made.sites.items()}
        await asyncio.sleep(0.5)

        assert {n: site.replica.messages for n, site in made.sites.items()} == before


async def test_tombstones_are_collected_when_all_have_acknowledged(tmp_path: Path) -> None:
    """Nothing is kept for ever about a file everybody knows to be gone."""
    async with cluster(tmp_path, "a", "b", "c", lines="ab bc") as made:
        (made.sites["a"].root / "f").write_text("1")
        await made.settled()
        (made.sites["c"].root / "f").unlink()
        await made.settled()
        async with asyncio.timeout(20):
            for site in made.sites.values():
                while await site.replica.worker(site.replica.stock.index.paths):
                    await site.replica.changed.wait(0.1)


async def test_j01_an_emptied_root_without_marker_deletes_nothing(tmp_path: Path) -> None:
    """An unmounted disk holds the replica; when it is back, all goes on."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        b = made.sites["b"]
        (b.root / "f").write_text("1")
        await made.settled()
        b.root.rename(tmp_path / "unmounted")
        b.root.mkdir()
        await b.replica.survey.now()
        assert (await b.replica.status()).state == "held"
        b.root.rmdir()
        (tmp_path / "unmounted").rename(b.root)
        async with asyncio.timeout(20):
            while (await b.replica.status()).state == "held":
                await b.replica.changed.wait(0.5)
        (made.sites["a"].root / "g").write_text("2")

        assert await made.settled() == {"f": b"1", "g": b"2"}


async def test_q01_an_ignored_file_stays_on_both_sides(tmp_path: Path) -> None:
    """A new rule deletes nothing anywhere; un-ignoring fetches what is missing (Q02)."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"].root, made.sites["b"].root
        (a / "x.log").write_text("1")
        await made.settled()
        (a / ".p2psyncignore").write_text("*.log\n")
        await made.settled()
        assert (a / "x.log").exists()
        assert (b / "x.log").exists()
        (a / "x.log").unlink()
        await made.sites["a"].replica.survey.now()
        assert (b / "x.log").exists()
        (b / ".p2psyncignore").write_text("")

        assert await made.settled() == {"x.log": b"1", ".p2psyncignore": b""}


async def test_q05_unreadable_rules_hold_the_folder(tmp_path: Path) -> None:
    """Rules that cannot be parsed never mean "ignore nothing"."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a = made.sites["a"]
        (a.root / "f").write_text("1")
        await made.settled()
        (a.root / ".p2psyncignore").write_bytes(b"\xff\xfe")
        await a.replica.survey.now()

        status = await a.replica.status()
        assert status.state == "held"
        assert ".p2psyncignore" in status.detail
