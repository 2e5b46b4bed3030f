"""Says whether a directory lies on a network, where SQLite's log must not be.

The log's index is shared memory: between two machines it is not shared, and locks of network
filesystems are known to be forgotten. Refusing is the only safe answer.
"""

from __future__ import annotations

import os
import pathlib
from typing import Final

NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "davfs"),
        *("fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.glusterfs", "fuse.davfs2"),
    }
)
MOUNTS: Final = pathlib.Path("/proc/self/mountinfo")


def network_of(directory: pathlib.Path) -> str | None:
    """Return the kind of network filesystem the directory is on; None: it is on none.

    Where the system does not tell (no /proc), that counts as none.
    """
    try:
        device = directory.stat().st_dev
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    return kind_of(mounts, f"{os.major(device)}:{os.minor(device)}")


def kind_of(mounts: str, device: str) -> str | None:
    """Find a device ("major:minor") in the text of mountinfo; None unless it is a network's.

    A line: id, parent, major:minor, root, mount point, options, optional fields, "-", type, …
    """
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        if head.split()[2:3] == [device]:
            kind = tail.split()[:1]
            return kind[0] if kind and kind[0] in NETWORK else None
    return None
