"""Everything that lives as long as the agent: replicas, peers, the network, pairings.

The one place where tasks are born that outlive a request. A replica that fails is logged and
started anew after a pause; nothing of it is lost, for what it told was durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3

from p2psync import __version__
from p2psync.core import paths
from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine.conversation import Conversation
from p2psync.engine.dispatch import Dispatch, MemberRights, TwinRights
from p2psync.engine.membership import Membership
from p2psync.engine.network import Network
from p2psync.engine.pairing import Pairing
from p2psync.engine.peer import CLONE, Peer
from p2psync.engine.refusals import check_directory, check_place
from p2psync.engine.replica import Replica
from p2psync.engine.signal import Bell
from p2psync.errors import RemoteProtocolError, RootTrouble, StoreError, UserError
from p2psync.fs.root import Root
from p2psync.fs.watch import system_watching
from p2psync.identity.keys import Identity
from p2psync.net.channel import Channel
from p2psync.net.memory import memory_pair
from p2psync.protocol.messages import Hello, MemberRow
from p2psync.store.home import FolderRecord, Home

logger = logging.getLogger(__name__)

RESTART_S: Final = 5.0
CLASH_S: Final = 60.0
CLASH: Final = "two devices have the key of {}; run `p2psync id --new` on the copy"


class Places(Protocol):
    """Where the engine keeps its things."""

    @property
    def home(self) -> Path:
        """The agent's home."""
        ...

    @property
    def replicas(self) -> Path:
        """The directory of the index databases."""
        ...


class Household:
    """All replicas and peers of this device, and how they are kept going."""

    def __init__(self, *, identity: Identity, home: Home, places: Places, name: str) -> None:
        self.identity = identity
        self.name = name
        self.ready = asyncio.Event()
        self.changed = Bell()
        self.membership = Membership(home, identity, self._members_changed)
        self.replicas: dict[bytes, Replica] = {}
        self.peers: dict[DeviceId, Peer] = {}
        self._home = home
        self._places = places
        self.instance = secrets.token_bytes(16)
        self._network = Network(
            identity, self.membership, self.peers.get, self._network_changed
        )
        self._watching = system_watching()
        self._pairing = Pairing(self, self._network, home)
        self._dispatches: set[Dispatch] = set()
        self._peer_tasks: dict[DeviceId, asyncio.Task[None]] = {}
        self._replica_tasks: dict[bytes, asyncio.Task[None]] = {}
        self._twin_tasks: dict[tuple[bytes, bytes], asyncio.Task[None]] = {}
        self._clashed_at: dict[DeviceId, float] = {}
        self._stop = asyncio.Event()
        self._group: asyncio.TaskGroup

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Work until `stop`; everything is closed when this returns."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._home.end_expired(time.time_ns())
            for record in self._home.folders():
                self._start_replica(record)
            await self._network.start(group)
            self._members_changed()
            self.ready.set()
            await self._stop.wait()
            for replica in self.replicas.values():
                replica.stop()
            await self._pairing.close()
            for task in [*self._peer_tasks.values(), *self._twin_tasks.values()]:
                task.cancel()
            await self._network.close()

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stop.set()

    def hello(self) -> Hello:
        """Return this device's greeting."""
        return Hello(self.name, self.instance, f"p2psync {__version__}")

    # ------------------------------------------------------------------ replicas

    def _start_replica(self, record: FolderRecord) -> Replica:
        replica = self._new_replica(record)
        self._replica_tasks[record.replica] = self._group.create_task(self._keep(record))
        self._join_twins()
        return replica

    def _new_replica(self, record: FolderRecord) -> Replica:
        others = self._others_of(record)
        replica = Replica(record, self._places.replicas, others, self._watching)
        self.replicas[record.replica] = replica
        return replica

    def _others_of(self, record: FolderRecord) -> Callable[[], Collection[bytes]]:
        def others() -> list[bytes]:
            me = self.identity.device
            devices = [bytes(d) for d in self.membership.of(record.folder) if d != me]
            twins = [twin_key(r) for r, _ in self._replicas_of(record.folder)]
            return devices + [key for key in twins if key != twin_key(record.replica)]

        return others

    def _replicas_of(self, folder: FolderId) -> list[tuple[bytes, Replica]]:
        """Return the replicas of a folder, the one that meets the peers first."""
        return [
            (key, replica)
            for key, replica in self.replicas.items()
            if replica.record.folder == folder
        ]

    async def _keep(self, record: FolderRecord) -> None:
        """Run a replica; start it anew when it fails."""
        while True:
            replica = self.replicas.get(record.replica)
            if replica is None:
                return
            try:
                await replica.run()
                return
            except Exception:
                where = paths.printable(record.root)
                logger.exception("%s failed and is started anew", where)
            if self.replicas.get(record.replica) is not replica:
                return  # it was left
            self._new_replica(record).failure = replica.failure
            self._refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESTART_S):
                    await self._stop.wait()
                    return

    def replica_of(self, folder: FolderId, root: bytes) -> Replica:
        """Return the replica of a folder at a root; a new one if there is none yet."""
        for replica in self.replicas.values():
            if replica.record.root == root and replica.record.folder == folder:
                return replica
        name = paths.printable(os.path.basename(root))[:100]
        return self.add_replica(root, folder, name)

    def key_of(self, replica: Replica) -> bytes:
        """Return the peer key under which a twin knows a replica of this device."""
        return twin_key(replica.record.replica)

    def check_place(self, path: bytes, folder: FolderId | None = None) -> bytes:
        """Return the path without symlinks; raise UserError if no replica may be there.

        It need not exist. folder: which it would be; None: not known yet.
        """
        root = os.path.realpath(path)
        records = [replica.record for replica in self.replicas.values()]
        check_place(root, [one.root for one in records], os.fsencode(self._places.home))
        if folder and any(one.root == root and one.folder != folder for one in records):
            raise UserError(
                f"{paths.printable(root)} is another folder that is shared already. "
                "Choose another directory."
            )
        return root

    def check_root(self, path: bytes) -> bytes:
        """Return the path without symlinks; raise UserError if it must not be shared."""
        root = self.check_place(path)
        check_directory(root)
        return root

    def connected(self, device: DeviceId) -> str | None:
        """Return the name a connected peer gave itself; None: not connected."""
        peer = self.peers.get(device)
        return peer.name if peer and peer.conversation else None

    def replica_at(self, root: bytes) -> Replica | None:
        """Return the replica at a root, or around a path below it."""
        for replica in self.replicas.values():
            if root == replica.record.root or root.startswith(replica.record.root + b"/"):
                return replica
        return None

    def add_replica(self, root: bytes, folder: FolderId, name: str) -> Replica:
        """Make a new replica at an existing directory; durable when this returns.

        Raises:
            UserError: the directory is the root of another replica already, or cannot be used.
        """
        replica = secrets.token_bytes(16)
        try:
            Root.create(root, replica, bytes(folder)).close()
        except RootTrouble as trouble:
            raise UserError(trouble.message + ".") from trouble
        record = FolderRecord(replica, folder, root, name)
        self._home.add_folder(record)
        made = self._start_replica(record)
        self._members_changed()
        return made

    def _join_twins(self) -> None:
        """Join every further replica of a folder with the first one on this device."""
        wanted: set[tuple[bytes, bytes]] = set()
        for key, replica in self.replicas.items():
            first = self._replicas_of(replica.record.folder)[0][0]
            if key != first:
                wanted.add((first, key))
        for pair in self._twin_tasks.keys() - wanted:
            self._twin_tasks.pop(pair).cancel()
        for pair in wanted - self._twin_tasks.keys():
            self._twin_tasks[pair] = self._group.create_task(self._keep_joined(*pair))

    async def _keep_joined(self, first: bytes, second: bytes) -> None:
        while True:
            one, other = memory_pair()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._twin(one, first, second))
                    group.create_task(self._twin(other, second, first))
            except* Exception:
                logger.exception("two replicas on this device are joined anew")
            await asyncio.sleep(RESTART_S)

    async def _twin(self, channel: Channel, mine: bytes, theirs: bytes) -> None:
        device = self.identity.device
        conversation = Conversation(channel, device, twin_key(theirs), self.hello())
        conversation.admitted.set_result(None)
        rights = TwinRights(lambda: self.replicas.get(mine))
        await self._hold(Dispatch(conversation, rights))

    # ------------------------------------------------------------------ peers

    def _members_changed(self) -> None:
        """Start and stop peers, cut the revoked, tell everybody, attach what is new."""
        if not self.ready.is_set() and not hasattr(self, "_group"):
            return
        wanted = self.membership.peers()
        for device in list(self.peers):
            if device not in wanted:
                self.peers.pop(device).cut("no longer a member")
                self._peer_tasks.pop(device).cancel()
        for device in wanted:
            if device not in self.peers:
                self._start_peer(device)
        self._network.peers_changed()
        self._unclash()
        self._refresh()

    def _start_peer(self, device: DeviceId) -> None:
        peer = Peer(
            device,
            self.identity.device,
            hello=self.hello,
            dial=self._network.dial,
            converse=self._converse,
            cloned=self._cloned,
        )
        peer.seen(self.membership.last_addresses(device))
        self.peers[device] = peer
        self._peer_tasks[device] = self._group.create_task(self._keep_peer(peer))

    async def _keep_peer(self, peer: Peer) -> None:
        """Run a peer; start it anew when it fails: that is nobody else's trouble."""
        while True:
            try:
                await peer.run()
            except Exception:
                logger.exception("peer %s failed and is started anew", peer.device.short)
            await asyncio.sleep(RESTART_S)

    def _network_changed(self) -> None:
        """An interface or address came or went: every peer is tried at once."""
        for peer in self.peers.values():
            peer.seen([])

    def _refresh(self) -> None:
        for dispatch in self._dispatches:
            dispatch.refresh()
        self.changed.ring()

    def _cloned(self, device: DeviceId) -> None:
        """Two devices answer with one key: hold what they share until only one is left."""
        logger.error("%s is used by two devices: run `p2psync id --new` on the copy", device)
        self._clash(device, device.short)

    def _clash(self, peer: DeviceId, whose: str) -> None:
        self._clashed_at[peer] = time.monotonic()
        for replica in self._shared_with(peer).values():
            replica.set_clash(CLASH.format(whose))
        asyncio.get_running_loop().call_later(CLASH_S, self._unclash)

    def _recently_clashed(self, peer: DeviceId) -> bool:
        return time.monotonic() - self._clashed_at.get(peer, -CLASH_S) < CLASH_S

    def _unclash(self) -> None:
        """Both would have met again within a minute: only one of them is left, or none."""
        clashing = {
            folder
            for peer in self._clashed_at
            if self._recently_clashed(peer)
            for folder in self._shared_with(peer)
        }
        for replica in self.replicas.values():
            if replica.folder not in clashing:
                replica.set_clash("")

    async def _converse(self, conversation: Conversation) -> None:
        rights = MemberRights(conversation.peer, self._shared_with, self._rows_of, self._learn)
        device = conversation.peer
        try:
            reason = await self._hold(Dispatch(conversation, rights))
            if reason == CLONE and not self._recently_clashed(device):
                logger.error("this device's key is used by another device as well")
                self._clash(device, "this device")
        finally:
            peer = self.peers.get(device)
            if peer is not None and conversation.was_admitted:
                try:
                    self.membership.seen(device, peer.candidates())
                except StoreError as error:
                    logger.error("where %s is cannot be noted: %s", device.short, error)

    async def _hold(self, dispatch: Dispatch) -> str:
        self._dispatches.add(dispatch)
        self.changed.ring()
        try:
            reason = await dispatch.run()
            logger.info("session with %s ended: %s", dispatch.conversation.peer.short, reason)
            return reason
        finally:
            self._dispatches.discard(dispatch)
            self.changed.ring()

    def _shared_with(self, device: DeviceId) -> Mapping[bytes, Replica]:
        shared: dict[bytes, Replica] = {}
        for replica in self.replicas.values():
            if self.membership.may_sync(replica.record.folder, device):
                shared.setdefault(replica.folder, replica)
        return shared

    def _rows_of(self, folder: bytes) -> list[MemberRow]:
        return self.membership.rows(FolderId(folder))

    def _learn(self, device: DeviceId, folder: bytes, rows: list[MemberRow]) -> None:
        try:
            self.membership.learn(FolderId(folder), rows, device)
        except ValueError as error:
            raise RemoteProtocolError(f"members of no folder: {error}") from error


def twin_key(replica: bytes) -> bytes:
    """Return the peer key under which another replica on this device is kept."""
    return blake3(b"twin" + replica).digest()
