"""An idle agent holds little and does nothing; what it holds does not grow with the folder."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from p2psync.core.entry import Kind
from p2psync.core.ignore import NOTHING
from p2psync.core.index import Place, Want
from p2psync.engine import fetch, replica
from p2psync.engine.fetch import Fetcher
from p2psync.engine.stock import Stock
from tests.support.replicas import PATIENCE_S, Site, cluster

TEND_S = 0.01


async def rests(site: Site) -> None:
    """Wait until thirty rounds of tending have asked nothing of the worker."""
    worker = site.replica.worker
    async with asyncio.timeout(PATIENCE_S):
        before = -1
        while worker.units != before:
            before = worker.units
            await asyncio.sleep(30 * TEND_S)


@pytest.mark.slow
async def test_silence_a_replica_without_work_asks_nothing_of_its_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither connected, nor alone with tombstones that nobody can take in now."""
    monkeypatch.setattr(replica, "TEND_S", TEND_S)
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        for number in range(50):
            (a.root / f"file {number}").write_text(str(number))
        await made.settled()
        await rests(a)
        await rests(b)
        await made.cut("a", "b")
        for number in range(20):
            (a.root / f"file {number}").unlink()
        await a.replica.survey.now()
        assert await a.replica.worker(a.replica.stock.index.tombstones, limit=100)
        await rests(a)


@pytest.mark.slow
async def test_tombstones_go_when_their_time_has_come_also_without_haste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are tried again as soon as a member is known to have taken them in."""
    monkeypatch.setattr(replica, "TEND_S", TEND_S)
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        (a.root / "file").write_text("x")
        await made.settled()
        (a.root / "file").unlink()
        await made.settled()
        for site in (a, b):
            await rests(site)
            index = site.replica.stock.index
            assert not await site.replica.worker(index.tombstones, limit=1)


async def test_bounded_the_queue_of_needs_while_a_peer_is_indexing(tmp_path: Path) -> None:
    """Its pages of 512 entries do not all pass for something that came up just now."""
    async with cluster(tmp_path, "a") as made:
        fetcher = Fetcher(made.sites["a"].replica)
        for page in range(24):
            fetcher.fresh({b"%d/%d" % (page, file): _want(page, file) for file in range(512)})
            await fetcher._look()
        assert len(fetcher._needs) <= fetch.FULL + fetch.FRESH
        assert fetcher.wake.is_set()  # the rest is looked for in the index


def _want(page: int, file: int) -> Want:
    path = b"%d/%d" % (page, file)
    content = hashlib.sha256(path).digest()
    return Want(Place(Kind.FILE, content, 1, b"", False, 0, frozenset({(1, file + 1)}), path))


def peak_of_scan(site: Site, path: Path, directories: int) -> int:
    """Return the most bytes that indexing so many directories of 50 files takes at once."""
    for directory in range(directories):
        (site.root / str(directory)).mkdir()
        for file in range(50):
            (site.root / str(directory) / str(file)).write_bytes(b"%d %d" % (directory, file))
    stock = Stock(site.record, path, joining=False)
    try:
        list(stock.open_root())
        tracemalloc.start()
        for _ in stock.scanner.tree(b"", NOTHING):
            pass
        (_, peak) = tracemalloc.get_traced_memory()
        assert stock.index.totals()[0] == directories * 50
    finally:
        tracemalloc.stop()
        stock.close()
    return peak


@pytest.mark.slow
async def test_bounded_the_memory_of_a_scan(tmp_path: Path) -> None:
    """Twice as many files take no more at once: what was looked at is let go."""
    async with cluster(tmp_path) as made:
        few = peak_of_scan(made.add("few"), tmp_path / "indexes", 100)
        many = peak_of_scan(made.add("many"), tmp_path / "indexes", 200)
    assert many - few < 500_000  # 5,000 files more: no 100 bytes are left of each


def test_an_agent_does_not_import_what_it_does_not_need() -> None:
    """No WebRTC before a peer wants it, no colours, and on Linux no second watcher.

    Nor what ignore rules and codes need, before there are any.
    """
    program = (
        "import sys, p2psync.agent.main, p2psync.agent.api, p2psync.engine.engine\n"
        "heavy = {'aiortc', 'aioice', 'av', 'rich', 're2', 'pathspec', 'spake2'}\n"
        "if sys.platform == 'linux': heavy.add('watchfiles')\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps what is free")
@pytest.mark.slow
def test_what_is_free_goes_back_to_the_system() -> None:
    """Also when something that is still in use lies above it."""
    program = (
        "from p2psync.engine import memory\n"
        "def held():\n"
        "    return int(open('/proc/self/statm').read().split()[1]) * 4096\n"
        "memory.settle()\n"
        "burst = [bytes(4000) for _ in range(20_000)]\n"
        "last = burst[-1]\n"
        "del burst\n"
        "before = held()\n"
        "memory.give_back()\n"
        "print(before - held())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert int(done.stdout) > 60_000_000, done.stderr
