"""The object that owns everything: replicas, peers, the network, pairings; and what is asked.

`run` is the one place where tasks are born that outlive a request. A replica that fails is
logged and started anew after a pause; nothing of it is lost, for what it told was durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3

from p2psync import __version__
from p2psync.core import paths
from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine.conversation import Conversation
from p2psync.engine.dispatch import Dispatch, MemberRights, TwinRights
from p2psync.engine.events import (
    DeviceStatus,
    Event,
    Finished,
    FolderStatus,
    Offer,
    PeerStatus,
    Progress,
    State,
    StateChanged,
    Status,
)
from p2psync.engine.membership import Membership
from p2psync.engine.network import Network
from p2psync.engine.pairing import Pairing
from p2psync.engine.peer import Peer
from p2psync.engine.refusals import check_new_root
from p2psync.engine.replica import Replica
from p2psync.engine.signal import Bell
from p2psync.engine.stock import remove_index
from p2psync.errors import ExitCode, RemoteProtocolError, UserError
from p2psync.fs.root import Root
from p2psync.identity.keys import Identity
from p2psync.net.channel import Channel
from p2psync.net.memory import memory_pair
from p2psync.protocol.messages import Hello, MemberRow
from p2psync.store.home import FolderRecord, Home

logger = logging.getLogger(__name__)

RESTART_S: Final = 5.0
SETTLED_S: Final = 1.0  # this long blocked without progress counts as finished with problems
PROGRESS_S: Final = 0.5


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


class Engine:
    """Everything p2psync does on this device; see the methods for what can be asked."""

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
        self._network = Network(identity, self.membership, self.peers.get)
        self._pairing = Pairing(self, self._network, home)
        self._dispatches: set[Dispatch] = set()
        self._peer_tasks: dict[DeviceId, asyncio.Task[None]] = {}
        self._replica_tasks: dict[bytes, asyncio.Task[None]] = {}
        self._twin_tasks: dict[bytes, asyncio.Task[None]] = {}
        self._stop = asyncio.Event()
        self._group: asyncio.TaskGroup

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Work until `stop`; everything is closed when this returns."""
        async with asyncio.TaskGroup() as group:
            self._group = group
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
        replica = Replica(record, self._places.replicas, others)
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
        return sorted(
            (key, replica)
            for key, replica in self.replicas.items()
            if replica.record.folder == folder
        )

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
            self._new_replica(record)
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

    def check_root(self, path: bytes) -> bytes:
        """Return the path without symlinks; raise UserError if it must not be shared."""
        root = os.path.realpath(path)
        roots = [replica.record.root for replica in self.replicas.values()]
        check_new_root(root, roots, os.fsencode(self._places.home))
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
        """Make a new replica at an existing directory; durable when this returns."""
        replica = secrets.token_bytes(16)
        Root.create(root, replica, bytes(folder)).close()
        record = FolderRecord(replica, folder, root, name, True)
        self._home.add_folder(record)
        made = self._start_replica(record)
        self._members_changed()
        return made

    def _join_twins(self) -> None:
        """Join every further replica of a folder with the first one on this device."""
        for key, replica in list(self.replicas.items()):
            first = self._replicas_of(replica.record.folder)[0][0]
            if key != first and key not in self._twin_tasks:
                task = self._group.create_task(self._keep_joined(first, key))
                self._twin_tasks[key] = task

    async def _keep_joined(self, first: bytes, second: bytes) -> None:
        while first in self.replicas and second in self.replicas:
            one, other = memory_pair()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._twin(one, first, second))
                group.create_task(self._twin(other, second, first))
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
        self.peers[device] = peer
        self._peer_tasks[device] = self._group.create_task(peer.run())

    def _refresh(self) -> None:
        for dispatch in self._dispatches:
            dispatch.refresh()
        self.changed.ring()

    def _cloned(self, device: DeviceId) -> None:
        logger.error("%s is used by two devices: run `p2psync id --new` on the copy", device)

    async def _converse(self, conversation: Conversation) -> None:
        rights = MemberRights(conversation.peer, self._shared_with, self._rows_of, self._learn)
        await self._hold(Dispatch(conversation, rights))

    async def _hold(self, dispatch: Dispatch) -> None:
        self._dispatches.add(dispatch)
        self.changed.ring()
        try:
            reason = await dispatch.run()
            logger.info("session with %s ended: %s", dispatch.conversation.peer.short, reason)
        finally:
            self._dispatches.discard(dispatch)
            self.changed.ring()

    def _shared_with(self, device: DeviceId) -> Mapping[bytes, Replica]:
        shared: dict[bytes, Replica] = {}
        for _, replica in sorted(self.replicas.items(), reverse=True):
            if self.membership.may_sync(replica.record.folder, device):
                shared[replica.folder] = replica
        return shared

    def _rows_of(self, folder: bytes) -> list[MemberRow]:
        return self.membership.rows(FolderId(folder))

    def _learn(self, device: DeviceId, folder: bytes, rows: list[MemberRow]) -> None:
        try:
            self.membership.learn(FolderId(folder), rows)
        except ValueError as error:
            raise RemoteProtocolError(f"members of no folder: {error}") from error

    # ------------------------------------------------------------------ share, accept, wait

    async def share(self, path: bytes, name: str | None) -> AsyncGenerator[Event, None]:
        """Put up a code for a folder, and follow the device that joins until both are equal.

        Closing the stream withdraws a code that was not used.

        Raises:
            UserError: the path cannot be shared.
        """
        replica = self._shared_replica(path, name)
        async with contextlib.aclosing(self._pairing.offer(replica)) as offered:
            joined = b""
            async for event in offered:
                if isinstance(event, bytes):
                    joined = event
                else:
                    yield event
        if joined:
            async for event in self._follow(replica, joined):
                yield event

    def _shared_replica(self, path: bytes, name: str | None) -> Replica:
        root = os.path.realpath(path)
        for replica in self.replicas.values():
            if replica.record.root == root:
                return replica
        self.check_root(root)
        folder = FolderId(secrets.token_bytes(16))
        plain = paths.printable(os.path.basename(root))[:100]
        self.membership.found(folder, self.name)
        return self.add_replica(root, folder, name or plain)

    async def accept(
        self,
        code: str,
        path: bytes | None,
        directory: bytes,
        timeout_s: float,
        confirm: Callable[[Offer], Awaitable[bool]],
    ) -> AsyncGenerator[Event, None]:
        """Join the folder a code stands for, and follow it until it is here.

        Args:
            code: as typed.
            path: where the folder shall be; None: a directory named after it.
            directory: where that one is made.
            timeout_s: how long to look for the sharing device.
            confirm: asked with what is coming; False declines.

        Raises:
            UserError: it did not work; with a sentence and the exit code.
        """
        joined: tuple[Replica, bytes] | None = None
        accepting = self._pairing.accept(code, path, directory, timeout_s, confirm)
        async with contextlib.aclosing(accepting) as events:
            async for event in events:
                if isinstance(event, tuple):
                    joined = event
                else:
                    yield event
        if joined is None:
            raise AssertionError("accepting ends with a replica or an error")
        async for event in self._follow(*joined):
            yield event

    async def _follow(self, replica: Replica, peer: bytes) -> AsyncGenerator[Event, None]:
        """Tell how a replica and one peer become equal; ends with `Finished`."""
        last: Event | None = None
        blocked_since: float | None = None
        while True:
            waiting = asyncio.ensure_future(replica.changed.wait(PROGRESS_S))
            try:
                status = await replica.status()
                for event in (
                    StateChanged(status.state, status.path),
                    await self._progress(replica, peer, status),
                ):
                    if isinstance(event, Progress) and event != last:
                        last = event
                        yield event
                if await replica.equal_with(peer):
                    break
                if status.state in (State.BLOCKED, State.HELD):
                    blocked_since = blocked_since or time.monotonic()
                    if time.monotonic() - blocked_since > SETTLED_S:
                        break
                else:
                    blocked_since = None
                await waiting
            finally:
                waiting.cancel()
        status = await replica.status()
        yield StateChanged(status.state, status.path)
        yield finished(status)

    async def _progress(self, replica: Replica, peer: bytes, status: FolderStatus) -> Progress:
        """How far this device and the peer are, together: what both have of what there is."""
        told = [link.exchange.told for link in replica.links if link.conversation.key == peer]
        files = status.need_files + (told[0].need_files if told else 0)
        size = status.need_bytes + (told[0].need_bytes if told else 0)
        size = max(0, size - sum(replica.fetcher.received.values()))
        total_files = status.files + status.need_files
        total_bytes = status.size_bytes + status.need_bytes
        return Progress(
            max(0, total_files - files), total_files, max(0, total_bytes - size), total_bytes
        )

    async def wait(
        self, path: bytes | None, timeout_s: float | None
    ) -> AsyncGenerator[Event, None]:
        """Wait until everything here and on every connected member is equal.

        Raises:
            UserError: there is no such folder, or the time ran out (exit 6).
        """
        replicas = self._chosen(path)
        try:
            async with asyncio.timeout(timeout_s):
                for replica in replicas:
                    async for event in self._wait_for(replica):
                        yield event
                        if isinstance(event, Finished):
                            return
        except TimeoutError:
            raise UserError(
                f"Not in sync after {timeout_s:g} s. `p2psync status` shows what is missing.",
                ExitCode.TIMEOUT,
            ) from None
        statuses = [await replica.status() for replica in replicas]
        yield max((finished(status) for status in statuses), key=lambda end: end.exit_code)

    def _chosen(self, path: bytes | None) -> list[Replica]:
        if path is None:
            if not self.replicas:
                raise UserError(
                    "No folder is shared here yet. Start with `p2psync share PATH`."
                )
            return list(self.replicas.values())
        return [self._replica_named(path)]

    def _replica_named(self, path: bytes) -> Replica:
        replica = self.replica_at(os.path.realpath(path))
        if replica is None:
            shown = paths.printable(path)
            raise UserError(f"{shown} is not in a shared folder. `p2psync status` lists them.")
        return replica

    async def _wait_for(self, replica: Replica) -> AsyncGenerator[Event, None]:
        await replica.opened()
        last: Event | None = None
        await replica.survey.now()
        while not await replica.in_sync():
            status = await replica.status()
            if status.state is State.HELD:
                yield StateChanged(status.state, status.path)
                yield Finished(ExitCode.HELD, f"Held: {status.detail}")
                return
            if status.state is State.BLOCKED and replica.links:
                break
            event = StateChanged(status.state, status.path)
            if event != last:
                last = event
                yield event
            await replica.changed.wait(PROGRESS_S)
        status = await replica.status()
        yield StateChanged(status.state, status.path)

    # ------------------------------------------------------------------ questions

    async def status(self) -> Status:
        """Return everything `status` shows."""
        folders = [await replica.status() for replica in self.replicas.values()]
        now_ns = time.time_ns()
        seen = {record.device: record for record in self._home.peers()}
        peers: list[PeerStatus] = []
        for device, row in self.membership.peers().items():
            record = seen.get(device)
            last = record.last_seen_ns if record else None
            ago = None if last is None else max(0.0, (now_ns - last) / 1e9)
            peers.append(self._peer_status(device, row.name, ago))
        return Status(
            self.identity.device, self.name, __version__, tuple(folders), tuple(peers)
        )

    def _peer_status(self, device: DeviceId, name: str, ago_s: float | None) -> PeerStatus:
        peer = self.peers.get(device)
        conversation = peer.conversation if peer else None
        if peer is None or conversation is None:
            state = "connecting" if peer and peer.dialling else "offline"
            return PeerStatus(device, name, state, "", "", None, ago_s)
        channel = conversation.channel
        return PeerStatus(
            device,
            peer.name or name,
            "connected",
            channel.transport,
            channel.address,
            conversation.rtt_ms,
            0.0,
        )

    async def devices(self) -> tuple[DeviceStatus, ...]:
        """Return the devices paired with this one."""
        found: list[DeviceStatus] = []
        for device, row in self.membership.peers().items():
            roots = [r.record.root for r in self._shared_with(device).values()]
            peer = self.peers.get(device)
            connected = peer is not None and peer.conversation is not None
            found.append(DeviceStatus(device, row.name, connected, tuple(sorted(roots))))
        return tuple(found)

    async def leave(self, path: bytes, purge: bool) -> None:
        """Stop syncing the replica at a path; files stay, `.p2psync/` goes only with purge.

        Raises:
            UserError: there is no replica there.
        """
        replica = self._replica_named(path)
        key = replica.record.replica
        self._home.remove_folder(key)
        del self.replicas[key]
        twin = self._twin_tasks.pop(key, None)
        if twin is not None:
            twin.cancel()
        self._refresh()
        replica.stop()
        await asyncio.wait([self._replica_tasks.pop(key)])
        await asyncio.to_thread(self._remove_traces, replica, purge)
        self._members_changed()
        self._join_twins()

    def _remove_traces(self, replica: Replica, purge: bool) -> None:
        remove_index(replica.record, self._places.replicas)
        if purge:
            record = replica.record
            root = Root.open(record.root, record.replica, bytes(record.folder))
            root.purge()
            root.close()

    async def forget(self, device: str, path: bytes | None) -> DeviceId:
        """Revoke a device in all folders, or in one; it is cut off at once.

        Raises:
            UserError: no device, or more than one, is called that.
        """
        chosen = self._device_named(device)
        replicas = self._chosen(path)
        folders = {replica.record.folder for replica in replicas}
        for folder in folders:
            if self.membership.may_sync(folder, chosen):
                self.membership.revoke(folder, chosen)
        return chosen

    def _device_named(self, text: str) -> DeviceId:
        plain = text.upper().replace("-", "").strip()
        peers = self.membership.peers()
        found = [
            device
            for device, row in peers.items()
            if str(device).replace("-", "").startswith(plain) or row.name == text
        ]
        if not plain or not found:
            raise UserError(f"No paired device is called {text!r}. See `p2psync devices`.")
        if len(found) > 1:
            raise UserError(f"{text!r} is more than one device. Type more of its id.")
        return found[0]


def twin_key(replica: bytes) -> bytes:
    """Return the peer key under which another replica on this device is kept."""
    return blake3(b"twin" + replica).digest()


def finished(status: FolderStatus) -> Finished:
    """Return how a command ends whose folder came to rest like this."""
    if status.state is State.HELD:
        return Finished(ExitCode.HELD, f"Held: {status.detail}")
    blocked, conflicts = len(status.problems), len(status.conflicts)
    if blocked or conflicts:
        counts = [
            f"{count} {word}"
            for count, word in ((blocked, "blocked"), (conflicts, "in conflict"))
            if count
        ]
        message = f"Up to date, {' and '.join(counts)}. `p2psync status` shows them."
        return Finished(ExitCode.CONFLICTS, message)
    return Finished(ExitCode.DONE)
