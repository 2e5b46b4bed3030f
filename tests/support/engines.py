"""Whole engines in one process, over real TLS and TCP on loopback; only mDNS is missing.

`Wire` stands for the LAN: it knows which device listens where and who offers which slot, and
tells peers of each other as announcements would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from p2psync.config.places import Places
from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine import household
from p2psync.engine.engine import Engine
from p2psync.engine.membership import Membership
from p2psync.engine.network import Network, Serve, tasks_until_exit
from p2psync.engine.peer import Peer
from p2psync.engine.replica import Replica
from p2psync.errors import ChannelClosedError, P2PSyncError
from p2psync.identity.keys import Identity
from p2psync.net.certificate import process_certificate
from p2psync.net.channel import Channel
from p2psync.net.dial import dial_peer
from p2psync.net.handshake import authenticate_dialled, authenticating
from p2psync.net.pairwire import PairingLink, PairingListener, dial_pairing
from p2psync.net.tls import TlsListener, dial
from p2psync.protocol.pairkey import KnownPeer
from p2psync.store.home import Home
from tests.support.hostile import Villain
from tests.support.protocol import device

HERE = "127.0.0.1"
PATIENCE_S = 30.0
FOLDER = FolderId(b"f" * 16)


class Wire:
    """Who listens where."""

    def __init__(self) -> None:
        self.networks: dict[DeviceId, Loopback] = {}
        self.offers: dict[str, list[int]] = {}

    def sight(self) -> None:
        """Tell everybody where their peers are."""
        for network in self.networks.values():
            network.look_around()


class Loopback(Network):
    """The network side of an engine, on loopback only."""

    def __init__(
        self,
        wire: Wire,
        identity: Identity,
        membership: Membership,
        peer_of: Callable[[DeviceId], Peer | None],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(identity, membership, peer_of, changed)
        self.wire = wire
        self.slots = self  # type: ignore[assignment]  # for `seen_slots`
        self.listener: TlsListener

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Listen on loopback."""
        on_channel = authenticating(self._identity, self._known_peers, self._accepted)
        certificate = process_certificate()
        self.listener = await TlsListener.open(certificate, on_channel, hosts=(HERE,))
        self.wire.networks[self._identity.device] = self
        self.wire.sight()

    async def close(self) -> None:
        """Listen no more."""
        del self.wire.networks[self._identity.device]
        await self.listener.close()

    def peers_changed(self) -> None:
        """Somebody new to find, or to be found by."""
        self.wire.sight()

    def look_around(self) -> None:
        """See every peer that is there."""
        for known in self._known_peers():
            other = self.wire.networks.get(known.device)
            peer = self._peer_of(known.device)
            if other is not None and peer is not None:
                peer.seen([(HERE, other.listener.port)])

    def seen_slots(self) -> set[str]:
        """Return the slots that are taken."""
        return set(self.wire.offers)

    async def put_up(self, stack: AsyncExitStack, slot: str, serve: Serve) -> None:
        """Offer a slot over TCP."""
        listener = await PairingListener.open(hosts=(HERE,))
        stack.push_async_callback(listener.close)
        serving = await stack.enter_async_context(tasks_until_exit())

        async def take_links() -> None:
            async for link in listener.links():
                serving(serve(link))

        serving(take_links())
        self.wire.offers.setdefault(slot, []).append(listener.port)
        stack.callback(self.wire.offers.pop, slot)

    async def look(self, slot: str, timeout_s: float) -> AsyncGenerator[PairingLink, None]:
        """Open a link to everybody who offers a slot."""
        for port in self.wire.offers.get(slot, []):
            yield await dial_pairing(HERE, port, PATIENCE_S)

    async def dial(self, peer: Peer, tls_only: bool) -> Channel | None:
        """Dial where the peer was seen."""
        known = {p.device: p for p in self._known_peers()}.get(peer.device)
        if known is None or not peer.candidates():
            return None
        try:
            return await dial_peer(self._identity, known, peer.candidates(), None)
        except (OSError, P2PSyncError):
            return None


class Machine:
    """One device: a home, an engine that can be stopped and started, folders below `path`."""

    def __init__(self, wire: Wire, path: Path, name: str) -> None:
        self.name = name
        self.path = path / name
        self.identity = device(name)
        self.places = Places(self.path / "home")
        self.places.create()
        self.engine: Engine
        self.home: Home
        self._wire = wire
        self._task: asyncio.Task[None] | None = None

    @property
    def id(self) -> DeviceId:
        """Who it is."""
        return self.identity.device

    async def start(self) -> None:
        """Run the engine."""
        self.home = Home.open(self.places.database)
        self.engine = Engine(
            identity=self.identity, home=self.home, places=self.places, name=self.name
        )
        self._task = asyncio.create_task(self.engine.run())
        async with asyncio.timeout(PATIENCE_S):
            await self.engine.ready.wait()

    async def stop(self) -> None:
        """End the engine as the agent would."""
        if self._task is not None:
            self.engine.stop()
            task, self._task = self._task, None
            try:
                await task
            finally:
                self.home.close()

    def root(self, name: str) -> Path:
        """Return a new directory to share."""
        root = self.path / name
        root.mkdir()
        return root

    async def founds(self, folder: FolderId = FOLDER, name: str = "folder") -> Path:
        """Share a new folder, without a code; return its root."""
        self.engine.membership.found(folder, self.name)
        root = self.adds(folder, name)
        await self.replica(folder).opened()  # while it is alone
        return root

    def invites(self, other: Machine | Identity, folder: FolderId = FOLDER) -> None:
        """Make another device a member, as a pairing would."""
        identity = other.identity if isinstance(other, Machine) else other
        name = other.name if isinstance(other, Machine) else "villain"
        self.engine.membership.invite(folder, identity.device, identity.key, name)

    def joins(self, inviter: Machine, folder: FolderId = FOLDER, name: str = "folder") -> Path:
        """Take a folder over from who invited this device; return its root."""
        theirs = inviter.engine.membership
        rows = theirs.invitation(folder, self.id)
        self.engine.membership.join(folder, rows, theirs.founder(folder))
        return self.adds(folder, name)

    def adds(self, folder: FolderId, name: str) -> Path:
        """Make a replica of a folder."""
        root = self.root(name)
        self.engine.add_replica(os.fsencode(root), folder, name)
        return root

    def replica(self, folder: FolderId = FOLDER) -> Replica:
        """Return the replica of a folder."""
        return next(r for r in self.engine.replicas.values() if r.record.folder == folder)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, looking whenever the engine or a replica stirs."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.engine.changed.wait(0.02)

    async def meets(self, *others: Machine) -> None:
        """Wait until it is connected with these."""
        for other in others:
            await self.until(lambda other=other: self.engine.connected(other.id) is not None)

    async def shows(self, path: Path, content: str | None = None) -> None:
        """Wait until a file is there, with this content if one is named."""
        await self.until(
            lambda: path.exists() and (content is None or path.read_text() == content)
        )


class Town:
    """Devices on one wire."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wire = Wire()
        self.machines: list[Machine] = []

    async def add(self, name: str) -> Machine:
        """Start another device."""
        machine = Machine(self.wire, self.path, name)
        self.machines.append(machine)
        await machine.start()
        return machine

    async def dials(self, villain: Identity, victim: Machine) -> Villain:
        """Connect to a device as somebody with these keys; authenticated, not greeted.

        Raises:
            ChannelClosedError: it does not know these keys (any more).
        """
        port = self.wire.networks[victim.id].listener.port
        channel = await dial(HERE, port, PATIENCE_S)
        known = KnownPeer(victim.id, villain.exchange(victim.identity.key, victim.id))
        await authenticate_dialled(channel, villain, known)
        return Villain(channel, bytes(FOLDER))

    async def refuses(self, villain: Identity, victim: Machine) -> bool:
        """Say whether a device lets nobody in with these keys."""
        try:
            villain_in = await self.dials(villain, victim)
            with contextlib.suppress(TimeoutError):
                await villain_in.greet()
        except ChannelClosedError:
            return True
        await villain_in.leave()
        return False

    async def close(self) -> None:
        """Stop every device."""
        for machine in self.machines:
            await machine.stop()


@contextlib.asynccontextmanager
async def town(path: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> AsyncIterator[Town]:
    """Start devices that do not know each other yet."""
    made = Town(path)
    monkeypatch.setattr(household, "Network", partial(Loopback, made.wire))
    try:
        for name in names:
            await made.add(name)
        yield made
    finally:
        await made.close()
