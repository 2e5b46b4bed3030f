"""The owner of one peer: gets a channel, keeps at most one conversation, replaces it by rule.

- While there is no conversation it dials: at once when the peer is seen, otherwise with a
  growing pause.
- A later authenticated session replaces the earlier one at once (the earlier may be half dead
  and not know it). Only when both sides dialled and both hellos came within two seconds, the
  one dialled by the smaller DeviceId stays, so that both sides keep the same one.
- The same key with another instance, while the old session still answers a ping sent after the
  new hello, is a clone of the device: both are told and the new session ends.
- While the conversation goes over WebRTC, TLS is tried again whenever the peer is seen and
  every minute: what is better takes over. A worse channel replaces a better one only when that
  one does not answer any more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from p2psync.core.ids import DeviceId
from p2psync.engine.conversation import Conversation
from p2psync.errors import ChannelClosedError
from p2psync.net.channel import Channel
from p2psync.net.registry import TRANSPORTS
from p2psync.protocol.messages import Hello

logger = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
EVERY_S = 2.0  # between two dials for the same reason
NEWS_S = 0.25  # between two dials when a place was seen that is new
BETTER_S = 60.0
BOTH_DIALLED_S = 2.0
MEETINGS = 8  # channels of one peer that have not said hello yet
CLONE_PING_S = 3.0
PROOF_S = 2.0
HELLO_S = 10.0
BEST = min(TRANSPORTS.keys() - {"memory"}, key=lambda name: TRANSPORTS[name])
CLONE = "another device speaks with the same key"

Address = tuple[str, int]
Dial = Callable[["Peer", bool], Coroutine[Any, Any, Channel | None]]
Converse = Callable[[Conversation], Awaitable[None]]


class Peer:
    """One peer as a task.

    Args:
        device: who it is. me: who we are.
        hello: makes our greeting.
        dial: gets an authenticated channel to the peer, or None; the flag asks for TLS only.
        converse: holds a conversation to its end (attaches folders, dispatches messages).
        cloned: called when the peer's key is in use twice.
    """

    def __init__(
        self,
        device: DeviceId,
        me: DeviceId,
        *,
        hello: Callable[[], Hello],
        dial: Dial,
        converse: Converse,
        cloned: Callable[[DeviceId], None],
    ) -> None:
        self.device = device
        self.me = me
        self.addresses: dict[Address, float] = {}
        self.conversation: Conversation | None = None
        self.name = ""
        self.dialling = False
        self.sighted_at = -math.inf  # on the LAN, by the monotonic clock
        self._hello = hello
        self._dial = dial
        self._converse = converse
        self._cloned = cloned
        self._instance = b""
        self._wake = asyncio.Event()
        self._news = False
        self._met = asyncio.Event()
        self._group: asyncio.TaskGroup
        self._meetings = 0
        self._proving = False
        self._stopped = False

    async def run(self) -> None:
        """Own the peer until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group, self._stopped = group, False
            try:
                await self._keep_connected()
            finally:
                self._stopped = True  # before the group waits for its last tasks

    def seen(self, addresses: list[Address]) -> None:
        """The peer was sighted, or the network changed: try these places at once, and first.

        A conversation that went on until now must show that it still does.
        """
        now = time.monotonic()
        self._news |= not self.addresses.keys() >= set(addresses)
        self.addresses.update(dict.fromkeys(addresses, now))
        for address in sorted(self.addresses, key=self.addresses.__getitem__)[:-16]:
            del self.addresses[address]
        self._wake.set()
        if self.conversation is not None and not (self._stopped or self._proving):
            self._proving = True
            self._group.create_task(self._prove(self.conversation))

    def candidates(self) -> list[Address]:
        """Where to dial, last seen first."""
        return sorted(self.addresses, key=self.addresses.__getitem__, reverse=True)

    def cut(self, reason: str) -> None:
        """End the conversation, if there is one."""
        if self.conversation is not None:
            self.conversation.close(reason)

    async def _keep_connected(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            self._wake.clear()
            self._news = False
            began = time.monotonic()
            current = self.conversation
            if current is None or current.channel.transport != BEST:
                channel = await self._dialled(tls_only=current is not None)
                if channel is not None:
                    await self._meet(channel)
            if self.conversation is not None:
                pause = BETTER_S
            woken = await self._rest(pause)
            if woken:
                await self._rest_since(began)
            pause = FIRST_PAUSE_S if woken else min(pause * 2, LONGEST_PAUSE_S)

    async def _rest(self, pause_s: float) -> bool:
        """Wait until there is a reason to dial; False when the time just ran out."""
        try:
            async with asyncio.timeout(pause_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _rest_since(self, began: float) -> None:
        """Keep the pace: sightings can be sent by anybody, and as often as they like."""
        while (left := began + (NEWS_S if self._news else EVERY_S) - time.monotonic()) > 0:
            self._wake.clear()
            await self._rest(left)

    async def _dialled(self, *, tls_only: bool) -> Channel | None:
        """Dial until it succeeds, fails, or the peer has come to us by the best way."""
        self.dialling = True
        self._met.clear()
        dialling = asyncio.create_task(self._dial(self, tls_only))
        met = asyncio.create_task(self._met.wait())
        try:
            await asyncio.wait({dialling, met}, return_when=asyncio.FIRST_COMPLETED)
            return dialling.result() if dialling.done() else None
        finally:
            self.dialling = False
            for task in (dialling, met):
                task.cancel()
            await asyncio.gather(dialling, met, return_exceptions=True)

    def accept(self, channel: Channel) -> None:
        """Take an authenticated channel that the peer opened."""
        if self._stopped or self._meetings >= MEETINGS:
            channel.abort("no longer a peer" if self._stopped else "too many at once")
        else:
            self._group.create_task(self._meet(channel))

    async def _meet(self, channel: Channel) -> None:
        """Take or refuse a new channel."""
        self._meetings += 1
        try:
            await self._greet(channel)
        finally:
            self._meetings -= 1

    async def _greet(self, channel: Channel) -> None:
        """Greet over a new channel and decide whether it is the one to use."""
        conversation = Conversation(channel, self.device, bytes(self.device), self._hello())
        self._group.create_task(self._hold(conversation))
        try:
            async with asyncio.timeout(HELLO_S):
                hello = await conversation.opened
        except (TimeoutError, ChannelClosedError):
            conversation.end("no hello")
            return
        if not await self._may_stay(conversation, hello) or conversation.over:
            return
        earlier, self.conversation = self.conversation, conversation
        self._instance, self.name = hello.instance, hello.name
        if earlier is not None:
            earlier.close("replaced by a later session")
        conversation.admitted.set_result(None)
        if channel.transport == BEST:
            self._met.set()
        self._wake.set()
        logger.info(
            "connected to %s over %s %s", self.device.short, channel.transport, channel.address
        )

    async def _may_stay(self, new: Conversation, hello: Hello) -> bool:
        current = self.conversation
        if current is None or current.over:
            return True
        if hello.instance != self._instance:
            if await self._answers(current, CLONE_PING_S):
                self._cloned(self.device)
                for conversation in (current, new):
                    conversation.close(CLONE)
                return False
        elif rank(new) > rank(current):
            # a worse way, tried because the better one was slow: it stays only if that is dead
            if await self._answers(current, CLONE_PING_S):
                new.close("there is a better channel")
                return False
        elif self._crossed(current, new):
            mine_stays = self.me < self.device
            if new.channel.dialled != mine_stays:
                new.close("both dialled")
                return False
        return True

    @staticmethod
    def _crossed(current: Conversation, new: Conversation) -> bool:
        both_dialled = current.channel.dialled != new.channel.dialled
        alike = both_dialled and rank(new) == rank(current)
        return alike and new.opened_at - current.opened_at < BOTH_DIALLED_S

    async def _prove(self, conversation: Conversation) -> None:
        """End a conversation that does not answer; its address may be gone with the network."""
        try:
            if not await self._answers(conversation, PROOF_S):
                conversation.end("no answer after the network changed")
        finally:
            self._proving = False

    @staticmethod
    async def _answers(conversation: Conversation, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await conversation.ping()
        except (TimeoutError, ChannelClosedError):
            return False
        return True

    async def _hold(self, conversation: Conversation) -> None:
        try:
            await self._converse(conversation)
        finally:
            if self.conversation is conversation:
                self.conversation = None
                self._wake.set()


def rank(conversation: Conversation) -> int:
    """Return how good a conversation's transport is; lower is better."""
    return TRANSPORTS[conversation.channel.transport]
