"""Large files between replicas: what little travels, what is tidied up, what does not wait."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from blake3 import blake3

from p2psync.core.manifests import combined
from p2psync.core.observed import Manifest as Known
from p2psync.engine import scanning
from p2psync.protocol import limits
from p2psync.protocol.messages import AskManifest
from tests.support.replicas import cluster

SIZE = 8_000_000


async def test_a_manifest_travels_as_a_difference(tmp_path: Path) -> None:
    """Against one the asker names; whole, when that one is not known or none is named."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        old = os.urandom(SIZE)
        (a.root / "film").write_bytes(old)
        await made.settled()
        new = old[: SIZE // 2] + b"changed" + old[SIZE // 2 :]
        (a.root / "film").write_bytes(new)
        await made.settled()
        content, base = blake3(new).digest(), blake3(old).digest()
        index = b.replica.stock.index
        whole, before = index.manifest(content), index.manifest(base)
        assert whole is not None
        assert before is not None
        provider = a.replica._provider
        assert provider is not None

        told = await provider.manifest(AskManifest(1, a.replica.folder, content, base))
        assert 0 < len(told.sizes) <= 3
        fresh = Known(told.hashes, told.sizes)
        most = limits.CHUNKS_PER_MANIFEST
        assert combined(before, fresh, told.spans, most) == whole
        for unknown in (None, bytes(32)):
            told = await provider.manifest(AskManifest(1, a.replica.folder, content, unknown))
            assert (told.hashes, told.sizes, told.spans) == (*whole, [])


async def test_a_false_base_only_costs_another_question(tmp_path: Path) -> None:
    """The manifest we build on may itself have come from a liar: the honest peer that told the
    difference is kept, and asked for the whole."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        old = os.urandom(SIZE)
        (a.root / "film").write_bytes(old)
        await made.settled()
        index, base = b.replica.stock.index, blake3(old).digest()

        def falsify() -> None:
            true = index.manifest(base)
            assert true is not None
            index.forget_manifest(base)
            index.put_manifests([(base, Known(true.hashes[::-1], true.sizes))])

        await b.replica.worker(falsify)
        links = list(b.replica.links)
        (a.root / "film").write_bytes(old + b"more")

        assert (await made.settled())["film"] == old + b"more"
        assert b.replica.links == links


async def test_what_was_assembled_and_is_wanted_no_more_is_removed(tmp_path: Path) -> None:
    """What is still wanted stays, for the transfer to go on."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        data, other = os.urandom(SIZE), os.urandom(SIZE)
        wanted, unwanted = blake3(data).digest(), blake3(other).digest()
        await made.settled()
        root = b.replica.stock.root
        for content, whole in ((wanted, data), (unwanted, other)):
            partial = root.partial(content, SIZE)
            partial.write([((0, 9, blake3(whole[:9]).digest()), whole[:9])])
            partial.close()
        b.replica.set_clash("so that nothing is fetched yet")
        (a.root / "film").write_bytes(data)
        await a.replica.survey.now()
        while not (await b.replica.worker(b.replica.stock.lacking))[0]:
            await b.replica.changed.wait(0.02)

        await b.replica.worker(b.replica.stock.prune)

        assert root.partials() == [wanted]
        b.replica.set_clash("")
        assert (await made.settled())["film"] == data
        assert root.partials() == []


async def test_a_huge_file_is_hashed_beside_everything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is read, the replica's worker does other things, and takes it in afterwards;
    what it was when it was read does not count if it has changed since."""
    monkeypatch.setattr(scanning, "UNIT_BYTES", SIZE // 2)
    reading, go_on = threading.Event(), threading.Event()
    real = scanning.observe

    def slow(*args: object) -> object:
        reading.set()
        assert go_on.wait(20)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(scanning, "observe", slow)
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a = made.sites["a"]
        (a.root / "film").write_bytes(os.urandom(SIZE))
        scan = asyncio.create_task(a.replica.survey.now())
        await asyncio.to_thread(reading.wait, 20)
        async with asyncio.timeout(20):
            assert await a.replica.worker(a.replica.stock.need) == (0, 0)
        (a.root / "film").write_bytes(data := os.urandom(SIZE))
        go_on.set()
        await scan
        assert (await made.settled())["film"] == data


async def test_nobody_is_in_sync_before_everything_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a device still hashes what it starts with, no peer takes its silence for "all"."""
    monkeypatch.setattr(scanning, "UNIT_BYTES", SIZE // 2)
    reading, go_on = threading.Event(), threading.Event()
    real = scanning.observe

    def slow(*args: object) -> object:
        reading.set()
        assert go_on.wait(20)
        return real(*args)  # type: ignore[arg-type]

    async with cluster(tmp_path, "a", "b") as made:
        a, b = made.sites["a"], made.sites["b"]
        await a.stop()
        (a.root / "film").write_bytes(data := os.urandom(SIZE))
        monkeypatch.setattr(scanning, "observe", slow)
        await a.start()
        await asyncio.to_thread(reading.wait, 20)
        made.join("a", "b")
        async with asyncio.timeout(20):
            while not (b.replica.links and b.replica.links[0].exchange.told.need_files):
                await b.replica.changed.wait(0.02)
        assert not await a.replica.in_sync()
        assert not await b.replica.in_sync()
        go_on.set()
        assert (await made.settled())["film"] == data
