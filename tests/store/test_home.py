"""The agent's home remembers folders, peers, members and pairings."""

from __future__ import annotations

import pathlib

import pytest

from p2psync.core.ids import DeviceId, FolderId
from p2psync.errors import CorruptIndexError, StoreError
from p2psync.protocol.messages import MemberRow
from p2psync.store.home import FolderRecord, Home, PeerRecord

DEVICE, OTHER = DeviceId(b"d" * 32), DeviceId(b"e" * 32)
FOLDER = FolderId(b"f" * 16)
PHOTOS = FolderRecord(b"r" * 16, FOLDER, b"/home/me/photos\xff", "photos")


def member(device: DeviceId, serial: int = 1, *, revoked: bool = False) -> MemberRow:
    return MemberRow(
        bytes(device), b"x" * 32, "pi", "rw", bytes(DEVICE), serial, revoked, b"s" * 64
    )


def test_folders_are_kept_over_a_restart(tmp_path: pathlib.Path) -> None:
    """A replica comes back with its root as bytes and its folder id as such."""
    home = Home.open(tmp_path / "agent.db")
    assert home.fresh
    second = PHOTOS._replace(replica=b"s" * 16, root=b"/a")
    home.add_folder(PHOTOS)
    home.add_folder(second)
    home.close()

    home = Home.open(tmp_path / "agent.db")

    assert not home.fresh
    assert home.folders() == [PHOTOS, second]
    assert isinstance(home.folders()[0].folder, FolderId)
    home.remove_folder(second.replica)
    assert home.folders() == [PHOTOS]
    home.close()


def test_one_root_has_one_replica(home: Home) -> None:
    """Two replicas at one root would fight; the second is refused."""
    home.add_folder(PHOTOS)

    with pytest.raises(StoreError):
        home.add_folder(PHOTOS._replace(replica=b"s" * 16))

    assert home.folders() == [PHOTOS]


def test_peers_are_kept_and_replaced(home: Home) -> None:
    """A peer is one record, whatever is learned of it."""
    peer = PeerRecord(DEVICE, b"k" * 32, "pi", (), None)
    home.put_peer(peer)
    home.put_peer(peer._replace(name="raspberry"))
    home.put_peer(PeerRecord(OTHER, b"k" * 32, "b", ("::1",), 5))
    assert home.peers()[0] == peer._replace(name="raspberry")
    assert isinstance(home.peers()[0].device, DeviceId)

    home.seen(DEVICE, ("192.0.2.1:4", "[::1]:4"), 77)
    home.seen(DeviceId(b"?" * 32), ("nowhere",), 77)

    assert home.peers() == [
        PeerRecord(DEVICE, b"k" * 32, "raspberry", ("192.0.2.1:4", "[::1]:4"), 77),
        PeerRecord(OTHER, b"k" * 32, "b", ("::1",), 5),
    ]
    home.remove_peer(OTHER)
    assert [known.device for known in home.peers()] == [DEVICE]


def test_members_only_grow(home: Home) -> None:
    """A statement is kept whole and never replaced, whatever others say about the same."""
    rows = [member(DEVICE), member(OTHER), member(OTHER, revoked=True), member(OTHER, 2)]
    other = MemberRow(
        bytes(OTHER), b"y" * 32, "pi", "rw", bytes(OTHER), 1, True, b"t" * 64, 3, (b"k" * 16,)
    )
    home.add_members(FOLDER, [*rows, other])
    home.add_members(FOLDER, rows)

    assert set(home.members(FOLDER)) == {*rows, other}
    assert home.members(FolderId(b"g" * 16)) == []
    home.add_folder(PHOTOS)
    home.remove_folder(PHOTOS.replica)
    assert set(home.members(FOLDER)) == {*rows, other}


def test_settings_are_kept(home: Home) -> None:
    """A setting is None until it is put; the last one counts."""
    assert home.get("device name") is None
    home.put("device name", b"pi")
    home.put("device name", b"pi 2")

    assert home.get("device name") == b"pi 2"


def test_a_pairing_is_stored_whole_or_not_at_all(home: Home) -> None:
    """Peer, members and folder go into one transaction."""

    def pair() -> None:
        with home.transaction():
            home.put_peer(PeerRecord(DEVICE, b"k" * 32, "pi", (), None))
            home.add_members(FOLDER, [member(DEVICE)])
            home.add_folder(PHOTOS)
            home.add_folder(PHOTOS)

    with pytest.raises(StoreError):
        pair()

    assert home.peers() == []
    assert home.members(FOLDER) == []
    assert home.folders() == []


def test_m06_damaged_home_is_put_aside(tmp_path: pathlib.Path) -> None:
    """The agent's own database is never overwritten when it is damaged."""
    path = tmp_path / "agent.db"
    path.write_bytes(b"noise" * 1_000)

    with pytest.raises(CorruptIndexError):
        Home.open(path)

    assert (tmp_path / "agent.db.corrupt-1").read_bytes() == b"noise" * 1_000
    Home.open(path).close()
