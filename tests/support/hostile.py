"""A peer that knows the protocol and breaks it on purpose, and the replicas it is let loose on.

The villain speaks with the program's own codec, so that what it sends is wrong only where a
test wants it to be. Every test ends with `Lab.unharmed`: nothing outside the root was touched,
and the honest peers go on syncing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from blake3 import blake3

from p2psync.core.entry import Entry, Kind, Value
from p2psync.core.ids import Dot
from p2psync.core.reconcile import encode as encode_entry
from p2psync.core.vector import Vector, digest, join
from p2psync.engine.conversation import Conversation
from p2psync.engine.dispatch import Dispatch, TwinRights
from p2psync.engine.events import State
from p2psync.engine.signal import Bell
from p2psync.errors import ChannelClosedError
from p2psync.net.channel import Channel
from p2psync.net.memory import memory_pair
from p2psync.protocol import codec
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Entries,
    Files,
    Hello,
    Item,
    Knowledge,
    Mark,
    Message,
    Ping,
    Pong,
    Recognised,
)
from tests.support.replicas import DEVICE, PATIENCE_S, Cluster, Site, cluster

VILLAIN = b"villain".rjust(32, b"-")
AUTHOR, START = 666, 1
M = TypeVar("M", bound=Message)


def hello(name: str = "villain") -> Hello:
    """Return a greeting of a process that has just started."""
    return Hello(name, secrets.token_bytes(16), "test")


def file_value(data: bytes, dot: Dot) -> Value:
    """Return the value of a file with these bytes."""
    content = blake3(data).digest()
    return Value(Kind.FILE, content, len(data), b"", 1, False, 10**18, 1, dot)


def link_value(target: bytes, dot: Dot) -> Value:
    """Return the value of a symlink."""
    return Value(Kind.LINK, blake3(target).digest(), 0, target, 1, False, 0, 1, dot)


def directory_value(dot: Dot) -> Value:
    """Return the value of a directory."""
    return Value(Kind.DIRECTORY, b"", 0, b"", 1, False, 0, 1, dot)


def entry_of(value: Value, dot: Dot, past: Vector | None = None) -> Entry:
    """Return an entry with this one live value."""
    return Entry(join(past or {}, {dot[0]: dot[1]}), {dot: value})


class Villain:
    """The other end of a channel, in the hands of a test; it listens all the while."""

    def __init__(self, channel: Channel, folder: bytes) -> None:
        self.channel = channel
        self.folder = folder
        self.known: Vector = {}  # what the victim told
        self.heard: list[Message] = []
        self.arrival = 0  # of the last entry told
        self.answers_pings = True
        self._looked_at = 0
        self._seq = 0
        self._gives: dict[bytes, bytes] = {}
        self._news = Bell()
        self._listening: asyncio.Task[None]
        self.listen()

    def listen(self) -> None:
        """Read what comes; that is what a villain begins with."""
        self._listening = asyncio.create_task(self._listen())

    # ------------------------------------------------------------------ speaking

    async def say(self, *messages: Message) -> None:
        """Send messages, whether they are in order or not; fine if nobody listens any more."""
        for message in messages:
            await self.raw(codec.encoder.encode(message))

    async def raw(self, data: bytes) -> None:
        """Send bytes."""
        with contextlib.suppress(ChannelClosedError):
            await self.channel.send(data)

    async def greet(self, name: str = "villain") -> Hello:
        """Open the session like anybody else."""
        await self.say(hello(name))
        return await self.hear(Hello)

    async def hear(self, kind: type[M]) -> M:
        """Return the next message of a kind that was not returned yet.

        Raises:
            ChannelClosedError: the victim has closed, and none came.
        """
        async with asyncio.timeout(PATIENCE_S):
            while True:
                while self._looked_at < len(self.heard):
                    message = self.heard[self._looked_at]
                    self._looked_at += 1
                    if isinstance(message, kind):
                        return message
                if self._listening.done():
                    raise ChannelClosedError("closed by the victim")
                await self._news.wait()

    async def _listen(self) -> None:
        with contextlib.suppress(ChannelClosedError):
            while True:
                message = codec.decode(await self.channel.receive())
                self.heard.append(message)
                self._news.ring()
                match message:
                    case Ping(number) if self.answers_pings:
                        await self.say(Pong(number))
                    case AskFiles() | AskManifest() | AskChunks():
                        await self.answer(message)
        self._news.ring()

    async def answer(self, ask: Message) -> None:
        """Give what was agreed to be given; other requests wait in vain."""
        if isinstance(ask, AskFiles):
            found = [(c, self._gives[c]) for c in ask.contents if c in self._gives]
            gone = [c for c in ask.contents if c not in self._gives]
            await self.say(Files(ask.request, found, gone, True))

    async def end(self) -> list[Message]:
        """Wait until the victim has closed; return all it ever said."""
        async with asyncio.timeout(PATIENCE_S):
            await self._listening
        return self.heard

    @property
    def cut_off(self) -> bool:
        """True once the victim has closed."""
        return self._listening.done()

    async def deaf(self) -> None:
        """Read nothing any more."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def leave(self) -> None:
        """Close the channel."""
        await self.channel.close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    # ------------------------------------------------------------------ the exchange

    async def attach(self) -> Attach:
        """Get acquainted with the victim's replica; it knows now that we know nothing."""
        theirs = await self.hear(Attach)
        await self.say(
            Recognised(self.folder, False), Attach(self.folder, 0, 0, digest({}), digest({}))
        )
        self.known = (await self.hear(Knowledge)).known
        return theirs

    async def tell(self, entries: Mapping[bytes, Entry], *, full: bool = False) -> None:
        """Send these entries, and the mark that claims we know them."""
        await self.say(page(self.folder, entries, full=full, after=self.arrival))
        self.arrival += len(entries)
        known: Vector = {}
        for entry in entries.values():
            known = join(known, entry.ctx)
        await self.claim(known, full=full)

    async def claim(self, known: Vector, *, full: bool = False) -> None:
        """Send a mark."""
        self.arrival += 1
        await self.say(mark_of(self.folder, known, end=self.arrival, full=full))

    def dot(self) -> Dot:
        """Return the next dot of our own author."""
        self._seq += 1
        return AUTHOR, self._seq

    def file(self, data: bytes, **odd: Any) -> Entry:
        """Return a new file's entry; odd: fields of its value to change."""
        dot = self.dot()
        value = msgspec.structs.replace(file_value(data, dot), **odd)
        return entry_of(value, dot)

    def link(self, target: bytes) -> Entry:
        """Return a new link's entry."""
        dot = self.dot()
        return entry_of(link_value(target, dot), dot)

    def directory(self) -> Entry:
        """Return a new directory's entry."""
        dot = self.dot()
        return entry_of(directory_value(dot), dot)

    def gives(self, data: bytes, lie: bytes | None = None) -> None:
        """From now on, give these bytes (or others: a lie) to who asks for their content."""
        self._gives[blake3(data).digest()] = data if lie is None else lie


V = TypeVar("V", bound=Villain)


def page(
    folder: bytes, entries: Mapping[bytes, Entry], *, full: bool = False, after: int = 0
) -> Entries:
    """Return a page with these entries, encoded as they are, right or wrong."""
    items = [
        Item(number, path, msgspec.Raw(encode_entry(entry)))
        for number, (path, entry) in enumerate(entries.items(), after + 1)
    ]
    return Entries(folder, START, full, items)


def mark_of(
    folder: bytes,
    known: Vector,
    *,
    end: int = 1,
    full: bool = False,
    collected: Vector | None = None,
    acks: dict[bytes, Vector | None] | None = None,
) -> Mark:
    """Return a mark that claims this knowledge."""
    return Mark(folder, START, end, full, known, collected or {}, acks or {}, 0, 0)


class Lab:
    """A victim and an honest peer, joined, with something outside to harm."""

    def __init__(self, made: Cluster, outside: Path) -> None:
        self.cluster = made
        self.outside = outside
        self.folder = bytes(made.folder)
        self.secret = outside / "secret"
        self.secret.write_text("secret")
        self.conversations: list[Conversation] = []
        self._tasks: list[asyncio.Task[str]] = []
        self._count = 0

    @property
    def victim(self) -> Site:
        """The site the villain talks to."""
        return self.cluster.sites["victim"]

    @property
    def honest(self) -> Site:
        """The site that does nothing wrong."""
        return self.cluster.sites["honest"]

    def join(self, channel: Channel, site: Site, key: bytes = VILLAIN) -> asyncio.Task[str]:
        """Let a site hold its end of a conversation with the villain."""
        conversation = Conversation(channel, DEVICE, key, hello("honest"))
        conversation.admitted.set_result(None)
        self.conversations.append(conversation)
        dispatch = Dispatch(conversation, TwinRights(lambda: site.replica))
        task = asyncio.create_task(dispatch.run())
        self._tasks.append(task)
        return task

    def villain(self, site: Site | None = None, kind: type[V] = Villain) -> V:  # type: ignore[assignment]  # V's default
        """Return a villain with a channel to a site (the victim, if none is named)."""
        mine, theirs = memory_pair()
        self.join(theirs, site or self.victim)
        return kind(mine, self.folder)

    @contextlib.asynccontextmanager
    async def attached(self, site: Site | None = None) -> AsyncIterator[Villain]:
        """Give a villain that has got as far as exchanging entries; it leaves at the end."""
        villain = self.villain(site)
        await villain.greet()
        await villain.attach()
        try:
            yield villain
        finally:
            await villain.leave()

    async def taken(self, villain: Villain) -> None:
        """Wait until the victim has taken in all the villain told, or has cut it off."""
        replica = self.victim.replica
        async with asyncio.timeout(PATIENCE_S):
            while not villain.cut_off:
                at = await replica.worker(replica.stock.index.cursor, VILLAIN)
                if at == (START, villain.arrival):
                    return
                await replica.changed.wait(0.02)

    async def quiet(self, villain: Villain) -> None:
        """Wait until the victim has done with it what it can."""
        await self.taken(villain)
        replica = self.victim.replica
        async with asyncio.timeout(PATIENCE_S):
            while (await replica.status()).state in (State.SYNCING, State.SCANNING):
                await replica.changed.wait(0.02)

    async def shows(self, path: bytes) -> None:
        """Wait until something stands at a path of the victim."""
        place = os.path.join(os.fsencode(self.victim.root), path)
        async with asyncio.timeout(PATIENCE_S):
            while not os.path.lexists(place):  # noqa: ASYNC240 - one lstat
                await self.victim.replica.changed.wait(0.02)

    def over(self) -> bool:
        """Say whether every session with a villain has ended."""
        return all(task.done() for task in self._tasks)

    @staticmethod
    def content(data: bytes) -> bytes:
        """Return the content hash of these bytes."""
        return blake3(data).digest()

    async def closed(self) -> list[str]:
        """Wait until the victim has ended every session with a villain; return why."""
        tasks, self._tasks = self._tasks, []
        async with asyncio.timeout(PATIENCE_S):
            return [str(reason) for reason in await asyncio.gather(*tasks)]

    def nothing_outside(self) -> None:
        """Outside the root all is as it was."""
        assert sorted(os.listdir(self.outside)) == ["secret"]
        assert self.secret.read_text() == "secret"

    async def unharmed(self) -> dict[str, bytes | None]:
        """The villains are gone, nothing outside was touched, and syncing goes on."""
        await self.closed()
        self.nothing_outside()
        self._count += 1
        (self.honest.root / "alive").write_text(f"{self._count}")
        tree = await self.cluster.settled()
        assert tree["alive"] == b"%d" % self._count
        self.nothing_outside()
        return tree


@contextlib.asynccontextmanager
async def lab(path: Path) -> AsyncIterator[Lab]:
    """Start a victim and an honest peer in a directory of their own."""
    outside, folder = path / "outside", path / "folder"
    outside.mkdir()
    folder.mkdir()
    async with cluster(folder, "victim", "honest") as made:
        (made.sites["victim"].root / "precious").write_text("precious")
        made.join("victim", "honest")
        laboratory = Lab(made, outside)
        await made.settled()
        try:
            yield laboratory
        finally:
            await laboratory.closed()
