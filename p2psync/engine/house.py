"""What pairing needs of the engine it works for."""

from __future__ import annotations

from typing import Protocol

from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine.membership import Membership
from p2psync.engine.replica import Replica
from p2psync.engine.signal import Bell
from p2psync.identity.keys import Identity


class House(Protocol):
    """What pairing needs of the engine."""

    identity: Identity
    name: str
    instance: bytes
    membership: Membership
    changed: Bell

    def replica_of(self, folder: FolderId, root: bytes) -> Replica:
        """Return the replica of a folder at a root; a new one if there is none yet."""
        ...

    def key_of(self, replica: Replica) -> bytes:
        """Return the peer key under which a twin knows a replica of this device."""
        ...

    def check_place(self, path: bytes, folder: FolderId | None = None) -> bytes:
        """Return the path without symlinks; raise UserError if no replica may be there.

        It need not exist. folder: which it would be; None: not known yet.
        """
        ...

    def check_root(self, path: bytes) -> bytes:
        """Return the path without symlinks; raise UserError if it must not be shared."""
        ...

    def connected(self, device: DeviceId) -> str | None:
        """Return the name a connected peer gave itself; None: not connected."""
        ...
