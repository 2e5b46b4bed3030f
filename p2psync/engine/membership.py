"""Who may sync what, as kept in the agent's home: members of each folder, peers of this device.

Every unrevoked member of a folder this device is a member of is a peer *for that folder*.
Rows are verified before they are stored, and durable before anything follows from them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from p2psync.core.ids import DeviceId, FolderId
from p2psync.errors import RemoteProtocolError
from p2psync.identity.keys import Identity
from p2psync.protocol import members
from p2psync.protocol.messages import MemberRow
from p2psync.protocol.pairkey import KnownPeer
from p2psync.store.home import Home, PeerRecord

logger = logging.getLogger(__name__)

Address = tuple[str, int]


class Membership:
    """The member lists of this device's folders.

    Args:
        home: where they are kept.
        identity: this device, which signs.
        changed: called after any list changed.
    """

    def __init__(self, home: Home, identity: Identity, changed: Callable[[], None]) -> None:
        self._home = home
        self._identity = identity
        self._changed = changed
        self._current: dict[FolderId, dict[DeviceId, MemberRow]] = {}
        self._pair_keys: dict[tuple[DeviceId, bytes], bytes] = {}

    def rows(self, folder: FolderId) -> list[MemberRow]:
        """Return every row known of a folder."""
        return self._home.members(folder)

    def of(self, folder: FolderId) -> Mapping[DeviceId, MemberRow]:
        """Return the folder's members now, this device included while it is one."""
        current = self._current.get(folder)
        if current is None:
            founder = self._founder(folder)
            rows = self._home.members(folder)
            current = {} if founder is None else members.current(rows, founder)
            self._current[folder] = current
        return current

    def may_sync(self, folder: FolderId, device: DeviceId) -> bool:
        """Say whether a device and this one are both members now."""
        current = self.of(folder)
        return device in current and self._identity.device in current

    def _founder(self, folder: FolderId) -> DeviceId | None:
        kept = self._home.get(f"founder:{folder}")
        return None if kept is None else DeviceId(kept)

    # ------------------------------------------------------------------ changing it

    def found(self, folder: FolderId, name: str) -> None:
        """Make this device the founder of a new folder."""
        row = members.found(self._identity, folder, name)
        with self._home.transaction():
            self._home.put(f"founder:{folder}", bytes(self._identity.device))
            self._home.add_members(folder, [row])
        self._forget(folder)

    def join(self, folder: FolderId, rows: list[MemberRow], founder: DeviceId) -> None:
        """Take over the list of a folder just joined; its founder is pinned.

        Raises:
            RemoteProtocolError: the list is not a list of this folder that has us in it.
        """
        fresh = members.verify_rows(folder, rows)
        known = self._founder(folder)
        if known is not None and known != founder:
            raise RemoteProtocolError("the folder has another founder than before")
        if self._identity.device not in members.current(fresh, founder):
            raise RemoteProtocolError("the member list does not have this device")
        with self._home.transaction():
            self._home.put(f"founder:{folder}", bytes(founder))
            self._home.add_members(folder, fresh)
        self._forget(folder)

    def invite(self, folder: FolderId, device: DeviceId, key: bytes, name: str) -> None:
        """Make a device a member; durable when this returns."""
        founder = self.founder(folder)
        rows = self._home.members(folder)
        row = members.invite(self._identity, folder, rows, founder, device, key, name)
        self._home.add_members(folder, [row])
        self._forget(folder)

    def revoke(self, folder: FolderId, device: DeviceId) -> bool:
        """End a device's membership; durable when this returns. False: it was none."""
        founder = self.founder(folder)
        rows = self._home.members(folder)
        row = members.revoke(self._identity, folder, rows, founder, device)
        if row is None:
            return False
        self._home.add_members(folder, [row])
        self._forget(folder)
        return True

    def learn(self, folder: FolderId, rows: list[MemberRow], teller: DeviceId) -> bool:
        """Take in rows that a peer told; say whether any was new.

        A teller who is no member is heard only if the rows make it one: it was invited a
        moment ago, by somebody who is not here. Else it gets no answer, whether the folder
        is here or not (T33).

        Raises:
            RemoteProtocolError: a row is false, or there are too many.
        """
        founder = self._founder(folder)
        if founder is None:
            return False
        had = self._home.members(folder)
        try:
            fresh = members.verify_rows(folder, rows, had)
        except RemoteProtocolError:
            if teller in self.of(folder):
                raise
            return False
        if teller not in self.of(folder) and teller not in members.current(
            had + fresh, founder
        ):
            return False
        if fresh:
            self._home.add_members(folder, fresh)
            self._forget(folder)
        return bool(fresh)

    def invitation(self, folder: FolderId, device: DeviceId) -> list[MemberRow]:
        """Return the few rows a device needs to join with."""
        founder = self.founder(folder)
        devices = (self._identity.device, device)
        return members.chain(self._home.members(folder), founder, devices)

    def founder(self, folder: FolderId) -> DeviceId:
        """Return who founded a folder of ours."""
        founder = self._founder(folder)
        if founder is None:
            raise AssertionError("a folder of ours has a founder")
        return founder

    def _forget(self, folder: FolderId) -> None:
        self._current.pop(folder, None)
        self._remember_peers(folder)
        self._changed()

    def _remember_peers(self, folder: FolderId) -> None:
        """Keep a place for what is known of each member beyond its rows."""
        known = {record.device for record in self._home.peers()}
        for device, row in self.of(folder).items():
            if device not in known and device != self._identity.device:
                self._home.put_peer(PeerRecord(device, row.key, row.name, (), None))

    # ------------------------------------------------------------------ peers

    def peers(self) -> dict[DeviceId, MemberRow]:
        """Return every other member of every folder of this device."""
        found: dict[DeviceId, MemberRow] = {}
        for record in self._home.folders():
            current = self.of(record.folder)
            if self._identity.device in current:
                found.update(current)
        found.pop(self._identity.device, None)
        return found

    def known(self, device: DeviceId, key: bytes) -> KnownPeer:
        """Return a peer as the machines know it."""
        pair_key = self._pair_keys.get((device, key))
        if pair_key is None:
            pair_key = self._identity.exchange(key, device)
            self._pair_keys[device, key] = pair_key
        return KnownPeer(device, pair_key)

    def known_peers(self) -> list[KnownPeer]:
        """Return all peers as the machines know them, without those whose key is none."""
        known: list[KnownPeer] = []
        for device, row in self.peers().items():
            try:
                known.append(self.known(device, row.key))
            except ValueError:
                logger.warning("the key of %s is no key", device.short)
        return known

    def seen(self, device: DeviceId, addresses: Iterable[Address]) -> None:
        """Note that a peer is there now, and where it listens."""
        texts = tuple(f"{host} {port}" for host, port in addresses)
        self._home.seen(device, texts, time.time_ns())

    def last_addresses(self, device: DeviceId) -> list[Address]:
        """Return where a peer listened when it was last there."""
        found: list[Address] = []
        for record in self._home.peers():
            if record.device == device:
                for text in record.addresses:
                    host, _, port = text.rpartition(" ")
                    if host and port.isdecimal():
                        found.append((host, int(port)))
        return found
