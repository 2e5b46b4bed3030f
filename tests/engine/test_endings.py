"""A replica that ends, or cannot begin: nobody waits for it for ever, nothing else stops."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from p2psync.core.ids import FolderId
from p2psync.engine.conversation import Conversation
from p2psync.engine.dispatch import Dispatch, TwinRights
from p2psync.engine.events import State
from p2psync.engine.replica import Replica
from p2psync.fs.watch import Hint, system_watching
from p2psync.net.memory import memory_pair
from p2psync.protocol.messages import Hello
from p2psync.store.home import FolderRecord
from tests.support.replicas import DEVICE, PATIENCE_S, cluster


def unusable(tmp_path: Path) -> Replica:
    """Return a replica whose index cannot be opened."""
    (tmp_path / "no directory").write_text("")
    folder = FolderId(b"a" * 16)  # comes first
    record = FolderRecord(b"r" * 16, folder, bytes(tmp_path), "broken")
    return Replica(record, tmp_path / "no directory", lambda: [b"somebody"], system_watching())


class TwoFolders(TwinRights):
    """Rights to two replicas."""

    def __init__(self, *replicas: Replica) -> None:
        """Give each."""
        super().__init__(lambda: None)
        self._all = {replica.folder: replica for replica in replicas}

    def folders(self) -> dict[bytes, Replica]:
        """Return both."""
        return self._all


async def test_isolation_a_folder_that_cannot_be_opened_keeps_no_other_from_syncing(
    tmp_path: Path,
) -> None:
    """Two devices share two folders; the index of one is broken, the other one syncs."""
    async with cluster(tmp_path, "a", "b") as made:
        a, b = made.sites["a"], made.sites["b"]
        (a.root / "f").write_text("1")
        hello = Hello("test", secrets.token_bytes(16), "test")
        one, other = memory_pair()
        conversations = [
            Conversation(one, DEVICE, b.key, hello),
            Conversation(other, DEVICE, a.key, hello),
        ]
        for conversation in conversations:
            conversation.admitted.set_result(None)
        rights = (
            TwoFolders(unusable(tmp_path), a.replica),
            TwoFolders(_twin_of_unusable(tmp_path), b.replica),
        )
        tasks = [
            asyncio.create_task(Dispatch(conversation, right).run())
            for conversation, right in zip(conversations, rights, strict=True)
        ]
        try:
            assert await made.settled() == {"f": b"1"}
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _twin_of_unusable(tmp_path: Path) -> Replica:
    record = FolderRecord(b"s" * 16, FolderId(b"a" * 16), bytes(tmp_path), "broken")
    members = [b"somebody"]
    return Replica(record, tmp_path / "no directory", lambda: members, system_watching())


async def test_a_replica_that_failed_says_why_and_lets_nobody_wait(tmp_path: Path) -> None:
    """Whoever waits for it to open, or to scan, goes on; it is "held", with the reason."""
    replica = unusable(tmp_path)
    waiting = [
        asyncio.create_task(replica.opened()),
        asyncio.create_task(replica.survey.now()),
    ]
    outcome = await asyncio.gather(replica.run(), return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*waiting)
        await replica.survey.now()

    assert isinstance(outcome[0], Exception)
    status = await replica.status()
    assert status.state is State.HELD
    assert "no directory" in status.detail
    assert not await replica.in_sync()


async def test_leaving_a_folder_ends_a_wait_for_it(tmp_path: Path) -> None:
    """A replica that was stopped answers questions like one that is not there."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        replica = made.sites["a"].replica
        await made.settled()
        await made.sites["a"].stop()
        async with asyncio.timeout(PATIENCE_S):
            await replica.survey.now()
        assert (await replica.status()).state is State.HELD
        assert not await replica.equal_with(made.sites["b"].key)


async def test_silence_a_held_replica_does_not_spin(tmp_path: Path) -> None:
    """A scan that is due while the root is away waits for it without using the processor."""
    async with cluster(tmp_path, "a") as made:
        a = made.sites["a"]
        await a.replica.survey.now()
        a.root.rename(tmp_path / "unmounted")
        await a.replica.survey.now()
        assert a.replica.held
        a.replica.survey._due = 1.0  # a minute ago and more
        a.replica.survey.follow(Hint())
        before = time.process_time()
        await asyncio.sleep(0.6)

        assert time.process_time() - before < 0.3
        (tmp_path / "unmounted").rename(a.root)
