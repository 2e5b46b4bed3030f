"""Between one conversation and the replicas it is about.

Attaches every folder both devices are members of, passes each message to the link it is for,
and looks membership up again at every message (authorisation): a device that was revoked a
moment ago gets the same answer as one that asks for a folder that does not exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Protocol

from p2psync.core.ids import DeviceId
from p2psync.engine.conversation import Conversation
from p2psync.engine.link import Link
from p2psync.engine.provide import nothing
from p2psync.engine.replica import Replica
from p2psync.engine.signal import Bell
from p2psync.errors import ChannelClosedError
from p2psync.protocol import limits
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Chunks,
    Detach,
    Files,
    Manifest,
    MemberRow,
    Members,
    Message,
)

logger = logging.getLogger(__name__)

ATTACH_S = 60.0
ROW_BYTES, KEPT_BYTES = (
    800,
    18,
)  # the most a member row takes on the wire, and each row it keeps


class Rights(Protocol):
    """What decides about a conversation's folders: membership, or being a local twin."""

    def folders(self) -> Mapping[bytes, Replica]:
        """Return the replicas this peer may sync with now, by folder."""
        ...

    def rows(self, folder: bytes) -> list[MemberRow] | None:
        """Return the member rows to tell; None: the peer needs none."""
        ...

    def learn(self, folder: bytes, rows: list[MemberRow]) -> None:
        """Take in rows the peer told; raises RemoteProtocolError for false ones."""
        ...


class Dispatch:
    """One conversation's dispatcher; `run` it, `refresh` it when membership changes."""

    def __init__(self, conversation: Conversation, rights: Rights) -> None:
        self.conversation = conversation
        self.links: dict[bytes, tuple[Replica, Link]] = {}
        self._rights = rights
        self._stacks: dict[bytes, AsyncExitStack] = {}
        self._opening: dict[Replica, asyncio.Task[None]] = {}
        self._told: dict[bytes, int] = {}
        self._attached = Bell()
        self._changed = asyncio.Event()
        self._changed.set()

    async def run(self) -> str:
        """Hold the conversation to its end; return why it ended."""
        attaching = asyncio.create_task(self._keep_attached())
        try:
            return await self.conversation.run(self._take)
        finally:
            tasks = [attaching, *self._opening.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for folder in list(self._stacks):
                await self._detach(folder)

    def refresh(self) -> None:
        """Membership or the replicas changed: attach, detach and tell what is new."""
        self._changed.set()

    async def _keep_attached(self) -> None:
        try:
            await self.conversation.admitted
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._attach_all()
        except ChannelClosedError:
            logger.debug("the conversation is over")
        except Exception as error:
            logger.exception("a bug, or a home that cannot be read, while attaching folders")
            self.conversation.end(f"internal error: {error}")

    async def _attach_all(self) -> None:
        shared = self._rights.folders()
        for folder, (replica, _) in list(self.links.items()):
            if shared.get(folder) is not replica:
                await self._detach(folder)
                if folder not in shared:
                    await self.conversation.send(Detach(folder))
        for folder, replica in shared.items():
            await self._tell_members(folder)
            if folder not in self.links:
                await self._attach_if_open(folder, replica)

    async def _attach_if_open(self, folder: bytes, replica: Replica) -> None:
        """Attach, or come back when the replica is open: the others do not wait for it."""
        if replica.is_open:
            try:
                await self._attach(folder, replica)
            except ChannelClosedError:
                if self.conversation.closing:
                    raise
                logger.debug("a replica ended while it was attached")
        elif replica not in self._opening:
            self._opening[replica] = asyncio.create_task(self._when_open(replica))

    async def _when_open(self, replica: Replica) -> None:
        try:
            await replica.opened()
        finally:
            del self._opening[replica]
        if replica.is_open:  # else it has failed, and another one takes its place
            self.refresh()

    async def _tell_members(self, folder: bytes) -> None:
        rows = self._rights.rows(folder)
        if rows is not None and self._told.get(folder) != len(rows):
            self._told[folder] = len(rows)
            for part in portions(rows):
                await self.conversation.send(Members(folder, part))

    async def _attach(self, folder: bytes, replica: Replica) -> None:
        stack = AsyncExitStack()
        link = await stack.enter_async_context(replica.attached(self.conversation))
        self._stacks[folder] = stack
        self.links[folder] = (replica, link)
        self._attached.ring()

    async def _detach(self, folder: bytes) -> None:
        self.links.pop(folder, None)
        stack = self._stacks.pop(folder, None)
        if stack is not None:
            await stack.aclose()

    # ------------------------------------------------------------------ messages

    async def _take(self, message: Message) -> None:
        await self.conversation.admitted
        if isinstance(message, Members):
            self._rights.learn(message.folder, message.rows)
            return
        if isinstance(message, Files | Manifest | Chunks):
            for _, link in list(self.links.values()):
                if await link.take_answer(message):
                    return
            return  # nobody waits for it any more
        folder: bytes = message.folder  # type: ignore[attr-defined]  # all others have one
        if isinstance(message, Detach):
            await self._detach(folder)
            return
        replica = self._rights.folders().get(folder)
        if replica is not None and replica.is_open and folder not in self.links:
            with suppress(TimeoutError):
                await self._attach_now(folder)
        found = self.links.get(folder)
        if replica is None or found is None or found[0] is not replica:
            await self._refuse(message)
            return
        await replica.receive(found[1], message)

    async def _attach_now(self, folder: bytes) -> None:
        """The peer was quicker to attach than we were: wait until we have."""
        self.refresh()
        async with asyncio.timeout(ATTACH_S):
            while folder not in self.links:
                await self._attached.wait()

    async def _refuse(self, message: Message) -> None:
        """The same answer whether the folder does not exist or is not this peer's (T33).

        An `Attach` may only be early: its person is still being asked whether to take the
        folder. The peer detaches, and attaches anew when we do.
        """
        if isinstance(message, Attach):
            await self.conversation.send(Detach(message.folder))
        elif isinstance(message, AskFiles | AskManifest | AskChunks):
            await self.conversation.send(nothing(message))


def portions(rows: list[MemberRow]) -> Iterator[list[MemberRow]]:
    """Split member rows into messages that fit a control frame; one at least, be it empty."""
    part: list[MemberRow] = []
    room = limits.CONTROL_FRAME * 7 // 8
    for row in rows:
        size = ROW_BYTES + KEPT_BYTES * len(row.kept)
        if size > room:
            yield part
            part, room = [], limits.CONTROL_FRAME * 7 // 8
        part.append(row)
        room -= size
    yield part


class TwinRights:
    """A second replica of the folder on this very device: it may have everything."""

    def __init__(self, replica: Callable[[], Replica | None]) -> None:
        self._replica = replica

    def folders(self) -> Mapping[bytes, Replica]:
        """Return the one replica at this end."""
        replica = self._replica()
        return {} if replica is None else {replica.folder: replica}

    def rows(self, folder: bytes) -> list[MemberRow] | None:
        """Tell none: both replicas use the same list."""
        return None

    def learn(self, folder: bytes, rows: list[MemberRow]) -> None:
        """Learn nothing: both replicas use the same list."""


class MemberRights:
    """A peer may sync the folders it is a member of now.

    Args:
        device: the peer.
        folders: returns the replicas of the folders a device is a member of.
        rows: returns all member rows of a folder.
        learn: takes in rows a device told.
    """

    def __init__(
        self,
        device: DeviceId,
        folders: Callable[[DeviceId], Mapping[bytes, Replica]],
        rows: Callable[[bytes], list[MemberRow]],
        learn: Callable[[DeviceId, bytes, list[MemberRow]], None],
    ) -> None:
        self._device = device
        self._folders = folders
        self._rows = rows
        self._learn = learn

    def folders(self) -> Mapping[bytes, Replica]:
        """Return the replicas of the folders this device is a member of now."""
        return self._folders(self._device)

    def rows(self, folder: bytes) -> list[MemberRow] | None:
        """Return all rows of a folder."""
        return self._rows(folder)

    def learn(self, folder: bytes, rows: list[MemberRow]) -> None:
        """Take in rows this device told."""
        self._learn(self._device, folder, rows)
