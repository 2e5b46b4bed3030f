"""The agent's own database: folders, peers, members, and pairings that must not be forgotten.

Everything is durable when its method returns.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

from p2psync.core.ids import DeviceId, FolderId
from p2psync.protocol.messages import MemberRow
from p2psync.store.codes import CodesPart
from p2psync.store.database import Database
from p2psync.store.encoding import decode_member, decode_texts, encode


class FolderRecord(NamedTuple):
    """One replica of this device.

    replica: 16 random bytes. root: absolute path.
    """

    replica: bytes
    folder: FolderId
    root: bytes
    name: str


class PeerRecord(NamedTuple):
    """A device we know.

    key: X25519 public key. addresses: where it was last reached. last_seen_ns: since the
    epoch; None: never.
    """

    device: DeviceId
    key: bytes
    name: str
    addresses: tuple[str, ...]
    last_seen_ns: int | None


class Home(CodesPart):
    """The database of the agent's home; used by one thread at a time."""

    @classmethod
    def open(cls, path: pathlib.Path) -> Home:
        """Open the database, or create it.

        Raises:
            CorruptIndexError: it was damaged and has been put aside; a fresh one has no
                folders and no peers.
            StoreError: it cannot be opened, or a newer version of the program made it.
        """
        return cls(Database(path, "home"))

    @property
    def fresh(self) -> bool:
        """Whether the database was just created."""
        return self._db.fresh

    def close(self) -> None:
        """Close the database; nothing of it may be used afterwards."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Make what happens inside durable in one step, or, after any exception, undone."""
        return self._db.transaction()

    def get(self, key: str) -> bytes | None:
        """Return a setting kept with `put`, or None."""
        found = self._db.one("SELECT value FROM notes WHERE key = ?", (key,))
        return found[0] if found else None

    def put(self, key: str, value: bytes) -> None:
        """Keep a setting of the device, in place of an earlier one of that key."""
        self._db.run(
            "INSERT INTO notes (key, value) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    # ------------------------------------------------------------------ folders

    def folders(self) -> list[FolderRecord]:
        """Return the replicas of this device, in the order they were added."""
        found = self._db.all("SELECT replica, folder, root, name FROM folders ORDER BY rowid")
        return [
            FolderRecord(replica, FolderId(folder), root, name)
            for replica, folder, root, name in found
        ]

    def add_folder(self, record: FolderRecord) -> None:
        """Add a replica.

        Raises:
            StoreError: there is one with this id or at this root already.
        """
        self._db.run(
            "INSERT INTO folders (replica, folder, root, name) VALUES (?, ?, ?, ?)",
            (record.replica, bytes(record.folder), record.root, record.name),
        )

    def remove_folder(self, replica: bytes) -> None:
        """Forget a replica; the member list of its folder stays."""
        self._db.run("DELETE FROM folders WHERE replica = ?", (replica,))

    # ------------------------------------------------------------------ peers

    def peers(self) -> list[PeerRecord]:
        """Return the devices we know, by id."""
        found = self._db.all(
            "SELECT device, key, name, addresses, last_seen_ns FROM peers ORDER BY device"
        )
        return [
            PeerRecord(
                DeviceId(device), key, name, self._db.decoded(decode_texts, texts), seen_ns
            )
            for device, key, name, texts, seen_ns in found
        ]

    def put_peer(self, record: PeerRecord) -> None:
        """Add a device, or replace what was known of it."""
        self._db.run(
            "INSERT INTO peers (device, key, name, addresses, last_seen_ns)"
            " VALUES (?, ?, ?, ?, ?) ON CONFLICT (device) DO UPDATE SET key = excluded.key,"
            " name = excluded.name, addresses = excluded.addresses,"
            " last_seen_ns = excluded.last_seen_ns",
            (
                bytes(record.device),
                record.key,
                record.name,
                encode(record.addresses),
                record.last_seen_ns,
            ),
        )

    def remove_peer(self, device: DeviceId) -> None:
        """Forget a device; what the member lists say of it stays."""
        self._db.run("DELETE FROM peers WHERE device = ?", (bytes(device),))

    def seen(self, device: DeviceId, addresses: tuple[str, ...], when_ns: int) -> None:
        """Note where and when a known device was reached; an unknown one is not added."""
        self._db.run(
            "UPDATE peers SET addresses = ?, last_seen_ns = ? WHERE device = ?",
            (encode(addresses), when_ns, bytes(device)),
        )

    # ------------------------------------------------------------------ members

    def members(self, folder: FolderId) -> list[MemberRow]:
        """Return every statement about the folder's members, always in the same order."""
        found = self._db.all(
            "SELECT row FROM members WHERE folder = ? ORDER BY row", (bytes(folder),)
        )
        return [self._db.decoded(decode_member, row) for (row,) in found]

    def add_members(self, folder: FolderId, rows: Iterable[MemberRow]) -> None:
        """Add statements that were verified; one that is known already is no news."""
        with self.transaction():
            self._db.many(
                "INSERT INTO members (folder, row) VALUES (?, ?) ON CONFLICT DO NOTHING",
                [(bytes(folder), encode(row)) for row in rows],
            )
