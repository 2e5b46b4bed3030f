"""What can be asked of the agent: share, accept, wait, status, devices, leave, forget."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from p2psync import __version__
from p2psync.core import paths
from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine.events import (
    DeviceStatus,
    Event,
    Finished,
    Offer,
    PeerStatus,
    State,
    StateChanged,
    Status,
)
from p2psync.engine.following import PROGRESS_S, Rest, finished, follow
from p2psync.engine.household import Household
from p2psync.engine.replica import Replica
from p2psync.engine.stock import remove_index
from p2psync.errors import ExitCode, UserError
from p2psync.fs.root import Root


class Engine(Household):
    """Everything p2psync does on this device; see the methods for what can be asked."""

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
            replica = self.replicas.get(replica.record.replica, replica)  # if it began anew
            async for event in follow(replica, joined):
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
        async for event in follow(*joined):
            yield event

    async def wait(
        self, path: bytes | None, timeout_s: float | None
    ) -> AsyncGenerator[Event, None]:
        """Wait until everything here and on every connected member is equal.

        Raises:
            UserError: there is no such folder, or the time ran out (exit 6).
        """
        replicas = self._chosen(path)
        try:
            ends: list[Finished] = []
            async with asyncio.timeout(timeout_s):
                for replica in replicas:
                    async for event in self._wait_for(replica):
                        if not isinstance(event, Finished):
                            yield event
                            continue
                        ends.append(event)
                        if event.exit_code is ExitCode.HELD:
                            yield event
                            return
        except TimeoutError:
            raise UserError(
                f"Not in sync after {timeout_s:g} s. `p2psync status` shows what is missing.",
                ExitCode.TIMEOUT,
            ) from None
        yield max(ends, key=lambda end: end.exit_code)

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
        rest, there = Rest(), False
        await replica.survey.now()
        replica.fetcher.retry_all()
        while not await replica.in_sync():
            status = await replica.status()
            if status.state is State.HELD:
                break
            there = replica.blocked_there()
            if rest.lasts(await replica.rests()):
                break
            event = StateChanged(status.state, status.path)
            if event != last:
                last = event
                yield event
            await replica.changed.wait(PROGRESS_S)
        else:
            there = False
        status = await replica.status()
        yield StateChanged(status.state, status.path)
        yield finished(status, there=there)

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
            *self._lacked_by(device),
        )

    def _lacked_by(self, device: DeviceId) -> tuple[int, int]:
        told = [
            link.exchange.told
            for replica in self.replicas.values()
            for link in replica.links
            if link.conversation.key == bytes(device)
        ]
        return sum(t.need_files for t in told), sum(t.need_bytes for t in told)

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
            UserError: there is no replica there, or it is further up.
        """
        replica = self._replica_rooted(path)
        key = replica.record.replica
        self._pairing.withdraw(replica)
        self._home.remove_folder(key)
        del self.replicas[key]
        self._join_twins()
        self._refresh()
        replica.stop()
        await asyncio.wait([self._replica_tasks.pop(key)])
        await asyncio.to_thread(self._remove_traces, replica, purge)
        self._members_changed()

    def _remove_traces(self, replica: Replica, purge: bool) -> None:
        remove_index(replica.record, self._places.replicas)
        if purge:
            record = replica.record
            root = Root.open(record.root, record.replica, bytes(record.folder))
            root.purge()
            root.close()

    def _replica_rooted(self, path: bytes) -> Replica:
        replica = self._replica_named(path)
        if replica.record.root != os.path.realpath(path):
            root = paths.printable(replica.record.root)
            raise UserError(f"That is inside {root}. To stop syncing all of it, name that.")
        return replica

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
