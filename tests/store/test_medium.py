"""A database is not put on a network filesystem."""

from __future__ import annotations

import os
import pathlib

import pytest

from p2psync.errors import StoreError
from p2psync.store import medium
from p2psync.store.index import Index

MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:45 / /home rw,relatime shared:9 master:2 - nfs4 server:/home rw,vers=4.2
31 22 0:46 / /mnt/a\\040-\\040b rw - fuse.sshfs me@host: rw
32 22 0:47 / /run rw - tmpfs tmpfs rw
broken
"""


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("254:1", None),
        ("0:45", "nfs4"),
        ("0:46", "fuse.sshfs"),
        ("0:47", None),
        ("9:9", None),
        ("0:4", None),
    ],
)
def test_m07_network_filesystems_are_told_apart(device: str, kind: str | None) -> None:
    """The kind of a mount is read from the system's own list."""
    assert medium.kind_of(MOUNTS, device) == kind


def test_m07_network_filesystem_is_refused(
    path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence says what to do; nothing is created."""
    mounts = tmp_path / "mountinfo"
    device = path.parent.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(f"1 0 {number} / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(medium, "MOUNTS", mounts)

    with pytest.raises(StoreError, match="local disk"):
        Index.open(path, start=1)

    assert not path.exists()


def test_a_system_that_does_not_tell_is_trusted(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the list of mounts the database is opened."""
    monkeypatch.setattr(medium, "MOUNTS", pathlib.Path("/absent"))

    Index.open(path, start=1).close()
