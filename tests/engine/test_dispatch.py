"""Between a conversation and its replicas: attached by right, looked up at every message."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

from p2psync.core.vector import digest
from p2psync.engine.conversation import Conversation
from p2psync.engine.dispatch import Dispatch
from p2psync.engine.replica import Replica
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.memory import memory_pair
from p2psync.protocol import limits
from p2psync.protocol.messages import (
    AskFiles,
    Attach,
    Detach,
    Files,
    MemberRow,
    Members,
    Ping,
    Pong,
    Recognised,
)
from tests.support.hostile import VILLAIN, Lab, Villain, hello
from tests.support.replicas import DEVICE, Cluster, Site, cluster

FOLDER = b"f" * 16
CONTENT = Lab.content(b"content")


class Rights:
    """What the peer may do, as the test says."""

    def __init__(self, site: Site | None = None) -> None:
        self.shared: dict[bytes, Replica] = {}
        if site is not None:
            self.shared[FOLDER] = site.replica
        self.told: list[tuple[bytes, list[MemberRow]]] = []
        self.list: list[MemberRow] | None = None

    def folders(self) -> Mapping[bytes, Replica]:
        """Return what is shared now."""
        return dict(self.shared)

    def rows(self, folder: bytes) -> list[MemberRow] | None:
        """Return the list, if there is one."""
        return self.list

    def learn(self, folder: bytes, rows: list[MemberRow]) -> None:
        """Note what was told; refuse rows named "false"."""
        if any(row.name == "false" for row in rows):
            raise RemoteProtocolError("a false row")
        self.told.append((folder, rows))


class Desk:
    """A dispatch under test and who speaks with it."""

    def __init__(self, rights: Rights, *, admitted: bool = True) -> None:
        mine, theirs = memory_pair()
        self.conversation = Conversation(mine, DEVICE, VILLAIN, hello("we"))
        if admitted:
            self.conversation.admitted.set_result(None)
        self.dispatch = Dispatch(self.conversation, rights)
        self.task = asyncio.create_task(self.dispatch.run())
        self.peer = Villain(theirs, FOLDER)


@contextlib.asynccontextmanager
async def desk(rights: Rights, *, admitted: bool = True) -> AsyncIterator[Desk]:
    """Run a dispatch whose peer has greeted."""
    made = Desk(rights, admitted=admitted)
    try:
        await made.peer.greet()
        yield made
    finally:
        await made.peer.leave()
        async with asyncio.timeout(10):
            await made.task


async def taken(peer: Villain) -> None:
    """Wait until all the peer said so far has been taken."""
    number = 1_000 + len(peer.heard)
    await peer.say(Ping(number))
    while (await peer.hear(Pong)).number != number:
        pass


def attach() -> Attach:
    """Return an Attach of somebody who knows nothing."""
    return Attach(FOLDER, 0, 0, digest({}), digest({}))


def row(name: str) -> MemberRow:
    """Return some member row."""
    return MemberRow(bytes(32), bytes(32), name, "rw", bytes(32), 1, False, bytes(64))


@contextlib.asynccontextmanager
async def one(path: Path) -> AsyncIterator[tuple[Cluster, Site]]:
    """Run a replica with one file."""
    async with cluster(path, "a") as made:
        site = made.sites["a"]
        (site.root / "f").write_bytes(b"content")
        await site.replica.survey.now()
        yield made, site


async def test_what_is_shared_is_attached(tmp_path: Path) -> None:
    """As soon as the session is admitted, each shared folder is attached, and served."""
    async with one(tmp_path) as (_, site), desk(Rights(site)) as made:
        assert (await made.peer.hear(Attach)).folder == FOLDER
        await made.peer.say(AskFiles(1, FOLDER, [CONTENT]))
        assert (await made.peer.hear(Files)).files == [(CONTENT, b"content")]
        assert len(site.replica.links) == 1


async def test_nothing_is_said_before_the_session_is_admitted(tmp_path: Path) -> None:
    """A session that may yet be sent away (a clone, a worse channel) shares nothing."""
    async with one(tmp_path) as (_, site), desk(Rights(site), admitted=False) as made:
        await made.peer.say(attach(), AskFiles(1, FOLDER, [CONTENT]))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not any(isinstance(m, Attach | Files) for m in made.peer.heard)
        assert not site.replica.links
        made.conversation.admitted.set_result(None)
        assert (await made.peer.hear(Files)).files == [(CONTENT, b"content")]


async def test_t37_a_right_that_ends_detaches_at_once(tmp_path: Path) -> None:
    """The peer is told, the link is gone, and what it asks now is answered as to a stranger,
    even before the detaching was done."""
    rights: Rights
    async with one(tmp_path) as (_, site):
        rights = Rights(site)
        async with desk(rights) as made:
            await made.peer.hear(Attach)
            del rights.shared[FOLDER]
            await made.peer.say(AskFiles(1, FOLDER, [CONTENT]))
            assert await made.peer.hear(Files) == Files(1, [], [CONTENT], True)
            made.dispatch.refresh()
            assert (await made.peer.hear(Detach)).folder == FOLDER
            assert not site.replica.links
            await made.peer.say(AskFiles(2, FOLDER, [CONTENT]))
            assert await made.peer.hear(Files) == Files(2, [], [CONTENT], True)


async def test_a_right_that_comes_later_attaches(tmp_path: Path) -> None:
    """A folder joined in the middle of a session needs no new session."""
    async with one(tmp_path) as (_, site):
        rights = Rights()
        async with desk(rights) as made:
            await taken(made.peer)
            rights.shared[FOLDER] = site.replica
            made.dispatch.refresh()
            assert (await made.peer.hear(Attach)).folder == FOLDER


async def test_who_attaches_first_is_attached_in_the_end(tmp_path: Path) -> None:
    """The peer was quicker than our replica: it hears so, and hears of us when we are open."""
    async with cluster(tmp_path) as made_cluster:
        site = made_cluster.add("a")
        opening = asyncio.create_task(site.start())
        await asyncio.sleep(0)  # it has begun
        async with desk(Rights(site)) as made:
            await made.peer.say(attach())
            await opening
            await made.peer.hear(Attach)
            if any(isinstance(said, Detach) for said in made.peer.heard):
                await made.peer.say(attach())  # as whoever is told so does
            while not any(isinstance(said, Recognised) for said in made.peer.heard):
                await site.replica.changed.wait(0.01)
            assert len(site.replica.links) == 1


async def test_a_detached_folder_can_be_attached_again(tmp_path: Path) -> None:
    """The peer leaves a folder and comes back in the same session."""
    async with one(tmp_path) as (_, site), desk(Rights(site)) as made:
        await made.peer.hear(Attach)
        await made.peer.say(Detach(FOLDER))
        await taken(made.peer)
        assert not site.replica.links
        await made.peer.say(attach())
        assert (await made.peer.hear(Attach)).folder == FOLDER
        await taken(made.peer)
        assert len(site.replica.links) == 1


async def test_a_replica_that_was_started_anew_is_attached_anew(tmp_path: Path) -> None:
    """It failed and came back as another object: the old link goes, a new one comes."""
    async with one(tmp_path) as (_, site):
        rights = Rights(site)
        async with desk(rights) as made:
            await made.peer.hear(Attach)
            await site.stop()
            await site.start()
            rights.shared[FOLDER] = site.replica
            made.dispatch.refresh()
            await made.peer.hear(Attach)
            assert len(site.replica.links) == 1
            await site.replica.survey.now()
            await made.peer.say(AskFiles(1, FOLDER, [CONTENT]))
            assert (await made.peer.hear(Files)).files == [(CONTENT, b"content")]


async def test_n09_a_session_that_was_replaced_attaches_nothing_any_more(
    tmp_path: Path,
) -> None:
    """Both sides dialled, and the replica opens only after the choice was made: the session
    that lost must not push out the one that stays."""
    async with one(tmp_path) as (_, site):
        rights = Rights()
        async with desk(rights) as lost:
            await taken(lost.peer)
            rights.shared[FOLDER] = site.replica
            async with desk(rights) as stays:
                await stays.peer.hear(Attach)
                lost.conversation.close("replaced by a later session")
                with pytest.raises(ChannelClosedError):
                    async with site.replica.attached(lost.conversation):
                        raise AssertionError("it must not be attached")
                await lost.peer.end()
                await stays.peer.say(AskFiles(1, FOLDER, [CONTENT]))
                assert (await stays.peer.hear(Files)).files == [(CONTENT, b"content")]


async def test_silence_members_are_told_once_and_when_there_are_more(tmp_path: Path) -> None:
    """At first all rows; after a change all rows again; otherwise nothing."""
    async with one(tmp_path) as (_, site):
        rights = Rights(site)
        rights.list = [row("one")]
        async with desk(rights) as made:
            assert (await made.peer.hear(Members)).rows == [row("one")]
            for _ in range(3):
                made.dispatch.refresh()
                await taken(made.peer)
            assert sum(isinstance(m, Members) for m in made.peer.heard) == 1
            rights.list = [row("one"), row("two")]
            made.dispatch.refresh()
            assert len((await made.peer.hear(Members)).rows) == 2


async def test_t23_a_vast_member_list_goes_in_several_messages(tmp_path: Path) -> None:
    """Rows as large as they can be, as many as there can be: each message fits a frame."""
    async with one(tmp_path) as (_, site):
        rights = Rights(site)
        kept = tuple(b"%016d" % number for number in range(limits.MEMBER_ROWS))
        largest = msgspec.structs.replace(row("\U0001f600" * limits.NAME_TEXT), kept=kept)
        rights.list = [msgspec.structs.replace(largest, serial=n + 1) for n in range(300)]
        async with desk(rights) as made:
            told: list[MemberRow] = []
            while len(told) < len(rights.list):
                told += (await made.peer.hear(Members)).rows
            assert told == rights.list


async def test_members_are_told_before_any_entry(tmp_path: Path) -> None:
    """Who is a member is known before anything follows from it."""
    async with one(tmp_path) as (_, site):
        rights = Rights(site)
        rights.list = [row("one")]
        async with desk(rights) as made:
            await made.peer.hear(Attach)
            kinds = [type(m) for m in made.peer.heard]
            assert kinds.index(Members) < kinds.index(Attach)


async def test_t27_false_members_end_the_session(tmp_path: Path) -> None:
    """What the list objects to closes the session, with the reason."""
    async with one(tmp_path) as (_, site), desk(Rights(site)) as made:
        await made.peer.say(Members(FOLDER, [row("false")]))
        await made.peer.end()
        assert await made.task == "a false row"


async def test_the_end_detaches_everything(tmp_path: Path) -> None:
    """However a session ends, the replica has no link and no task for it any more."""
    async with one(tmp_path) as (_, site):
        before = len(asyncio.all_tasks())
        for _ in range(5):
            async with desk(Rights(site)) as made:
                await made.peer.hear(Attach)
        assert not site.replica.links
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before:
                await site.replica.changed.wait(0.01)
