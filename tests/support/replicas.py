"""Real replicas in one process, joined by memory channels as a test draws the lines.

Real index, disk, watcher and sessions; only the network is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine.conversation import Conversation
from p2psync.engine.dispatch import Dispatch, TwinRights
from p2psync.engine.replica import Replica
from p2psync.fs.root import Root
from p2psync.fs.watch import system_watching
from p2psync.net.memory import memory_pair
from p2psync.protocol.messages import Hello
from p2psync.store.home import FolderRecord

DEVICE = DeviceId(b"d" * 32)
PATIENCE_S = 30.0


class Site:
    """One replica of the folder under test, which can be stopped and started again."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.root = cluster.path / name
        self.root.mkdir()
        self.key = name.encode().rjust(32, b"-")
        self.replica: Replica
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None
        encoded = os.fsencode(self.root)
        Root.create(encoded, self.key[16:], bytes(cluster.folder)).close()
        self.record = FolderRecord(self.key[16:], cluster.folder, encoded, name)

    async def start(self) -> None:
        """Run the replica; it knows all sites of the cluster as members."""
        cluster = self._cluster
        self.replica = Replica(
            self.record,
            cluster.path / "indexes",
            lambda: [site.key for site in cluster.sites.values() if site is not self],
            cluster.watching,
        )
        self._task = asyncio.create_task(self.replica.run())
        await self.replica.opened()

    async def stop(self) -> None:
        """Stop the replica as the agent would."""
        if self._task is not None:
            self.replica.stop()
            await self._task
            self._task = None

    def tree(self) -> dict[str, bytes | None]:
        """Return what a person sees: path -> bytes, None for a directory."""
        found: dict[str, bytes | None] = {}
        for place, directories, files in os.walk(self.root):
            if place == str(self.root) and ".p2psync" in directories:
                directories.remove(".p2psync")
            for name in (*directories, *files):
                full = Path(place, name)
                key = str(full.relative_to(self.root))
                if full.is_symlink():
                    found[key] = b"-> " + os.fsencode(os.readlink(full))
                else:
                    found[key] = None if full.is_dir() else full.read_bytes()
        return found


class Cluster:
    """Sites of one folder and the lines between them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = FolderId(b"f" * 16)
        self.sites: dict[str, Site] = {}
        self.watching = system_watching()
        self._lines: dict[tuple[str, str], asyncio.Task[None]] = {}
        (path / "indexes").mkdir()

    def add(self, name: str) -> Site:
        """Add a site with an empty root; start it yourself."""
        self.sites[name] = Site(self, name)
        return self.sites[name]

    def join(self, one: str, other: str) -> None:
        """Draw a line between two running sites."""
        self._lines[one, other] = asyncio.create_task(self._converse(one, other))

    async def cut(self, one: str, other: str) -> None:
        """Cut a line as a pulled cable would: without a word."""
        line = self._lines.pop((one, other))
        line.cancel()
        await asyncio.gather(line, return_exceptions=True)

    async def _converse(self, one: str, other: str) -> None:
        hello = Hello("test", secrets.token_bytes(16), "test")
        dispatches = []
        for channel, mine, theirs in zip(
            memory_pair(), (one, other), (other, one), strict=True
        ):
            conversation = Conversation(channel, DEVICE, self.sites[theirs].key, hello)
            conversation.admitted.set_result(None)
            replica = self.sites[mine].replica
            dispatches.append(Dispatch(conversation, TwinRights(lambda r=replica: r)))
        await asyncio.gather(*(dispatch.run() for dispatch in dispatches))

    async def settled(self, *names: str) -> dict[str, bytes | None]:
        """Wait until these sites (all, if none is named) are equal; return what they show."""
        sites = [self.sites[name] for name in names or self.sites]
        async with asyncio.timeout(PATIENCE_S):
            for site in sites:
                await site.replica.survey.now()
            while not await self._all_in_sync(sites):
                await sites[0].replica.changed.wait(0.02)
        trees = [site.tree() for site in sites]
        assert all(tree == trees[0] for tree in trees), trees
        return trees[0]

    def within(self) -> asyncio.Timeout:
        """Return the patience of these tests: `async with made.within(): …`."""
        return asyncio.timeout(PATIENCE_S)

    async def _all_in_sync(self, sites: list[Site]) -> bool:
        for site in sites:
            if not await site.replica.in_sync():
                return False
        replicas = [site.replica for site in sites]
        knowledge = [await each.worker(each.stock.index.facts) for each in replicas]
        return all(facts.known == knowledge[0].known for facts in knowledge)

    async def close(self) -> None:
        """Stop everything."""
        for line in self._lines.values():
            line.cancel()
        await asyncio.gather(*self._lines.values(), return_exceptions=True)
        for site in self.sites.values():
            await site.stop()


@contextlib.asynccontextmanager
async def cluster(path: Path, *names: str, lines: str = "") -> AsyncIterator[Cluster]:
    """Start sites and draw lines: `cluster(tmp_path, "a", "b", "c", lines="ab bc")`.

    The first site founds the folder: it is scanned before the others are there.
    """
    made = Cluster(path)
    try:
        for name in names:
            await made.add(name).start()
        for one, other in lines.split():
            made.join(one, other)
        yield made
    finally:
        await made.close()
