"""The marker and whether a root is still the same root."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.core.index import Row
from p2psync.errors import RootTrouble
from p2psync.fs.root import Root
from tests.support.folder import DIRECTORY, FOLDER, REPLICA, Folder, Link, in_child, place_of
from tests.support.require import require


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    path = tmp_path / "root"
    path.mkdir()
    folder = Folder.make(path)
    yield folder
    folder.root.close()


def test_a_root_is_made_once_and_opened_again(folder: Folder) -> None:
    """Its identity stays, and what it needs is private."""
    for again in (
        Root.open(os.fsencode(folder.path), REPLICA, FOLDER),
        Root.create(os.fsencode(folder.path), REPLICA, FOLDER),
    ):
        assert again.identity == folder.root.identity
        again.close()
    assert stat.S_IMODE(os.stat(folder.at(b".p2psync")).st_mode) == 0o700
    assert sorted(os.listdir(folder.at(b".p2psync"))) == [b"history", b"marker", b"staging"]
    assert stat.S_IMODE(os.stat(folder.at(b".p2psync/marker")).st_mode) == 0o600
    folder.root.check()


def test_two_roots_are_never_the_same(tmp_path: Path) -> None:
    """Even for the same replica: a marker made again is another one (J05)."""
    one, two = Folder.make(tmp_path), None
    os.unlink(one.at(b".p2psync/marker"))
    two = Folder.make(tmp_path)
    assert one.root.identity.marker != two.root.identity.marker
    assert one.root.identity[:2] == two.root.identity[:2]
    one.root.close()
    two.root.close()


def lose_root(folder: Folder) -> None:
    folder.path.rename(folder.path.with_name("elsewhere"))


def become_file(folder: Folder) -> None:
    lose_root(folder)
    folder.path.write_bytes(b"")


def be_emptied(folder: Folder) -> None:
    lose_root(folder)
    folder.path.mkdir()


def lose_marker(folder: Folder) -> None:
    os.unlink(folder.at(b".p2psync/marker"))


def lose_control(folder: Folder) -> None:
    os.rename(folder.at(b".p2psync"), folder.at(b"gone"))


def get_foreign_marker(folder: Folder) -> None:
    other = folder.path.with_name("other")
    other.mkdir()
    Root.create(os.fsencode(other), b"o" * 8, FOLDER).close()
    os.replace(other / ".p2psync/marker", folder.at(b".p2psync/marker"))


def get_marker_of_nothing(folder: Folder) -> None:
    Path(os.fsdecode(folder.at(b".p2psync/marker"))).write_bytes(b"\0garbage")


def have_marker_behind_link(folder: Folder) -> None:
    lose_control(folder)
    os.symlink(b"gone", folder.at(b".p2psync"))


TROUBLES = [
    pytest.param(lose_root, "missing", id="j02-missing"),
    pytest.param(become_file, "not a directory", id="j03-file"),
    pytest.param(be_emptied, "no marker", id="j01-j07-empty"),
    pytest.param(lose_marker, "no marker", id="j04-no-marker"),
    pytest.param(lose_control, "no marker", id="j04-no-control-directory"),
    pytest.param(get_foreign_marker, "foreign marker", id="foreign"),
    pytest.param(get_marker_of_nothing, "foreign marker", id="garbage"),
    pytest.param(have_marker_behind_link, "unreadable", id="link"),
]


@pytest.mark.parametrize(("change", "reason"), TROUBLES)
def test_a_root_in_trouble_is_not_opened(folder: Folder, change: object, reason: str) -> None:
    """The reason is a sentence with the path, and nothing is made."""
    assert callable(change)
    change(folder)
    before = sorted(os.listdir(folder.path)) if folder.path.is_dir() else None
    with pytest.raises(RootTrouble) as caught:
        Root.open(os.fsencode(folder.path), REPLICA, FOLDER)
    assert caught.value.reason == reason
    assert str(folder.path) in caught.value.message
    assert before == (sorted(os.listdir(folder.path)) if folder.path.is_dir() else None)


@pytest.mark.parametrize(("change", "reason"), TROUBLES)
def test_a_root_that_got_into_trouble_fails_its_check(
    folder: Folder, change: object, reason: str
) -> None:
    """An open root is not trusted for ever."""
    assert callable(change)
    change(folder)
    with pytest.raises(RootTrouble) as caught:
        folder.root.check()
    assert caught.value.reason == (reason if reason != "foreign marker" else "replaced")


def test_j05_another_root_at_the_same_path_fails_the_check(folder: Folder) -> None:
    """Even with the same marker: a copy is not the root."""
    lose_root(folder)
    folder.path.mkdir()
    os.mkdir(folder.at(b".p2psync"))
    marker = folder.path.with_name("elsewhere") / ".p2psync/marker"
    Path(os.fsdecode(folder.at(b".p2psync/marker"))).write_bytes(marker.read_bytes())
    with pytest.raises(RootTrouble, match="is not the directory it was"):
        folder.root.check()
    copy = Root.open(os.fsencode(folder.path), REPLICA, FOLDER)
    assert copy.identity != folder.root.identity
    assert copy.identity.marker == folder.root.identity.marker
    copy.close()


def test_the_root_of_another_replica_is_refused(folder: Folder) -> None:
    """And its marker stays as it is."""
    for replica, shared in ((b"o" * 8, FOLDER), (REPLICA, b"o" * 16)):
        with pytest.raises(RootTrouble) as caught:
            Root.create(os.fsencode(folder.path), replica, shared)
        assert caught.value.reason == "foreign marker"
    folder.root.check()


def test_what_the_root_lost_but_the_marker_is_made_again(folder: Folder) -> None:
    """Staging and history are nobody's evidence."""
    os.rmdir(folder.at(b".p2psync/staging"))
    os.rmdir(folder.at(b".p2psync/history"))
    with pytest.raises(RootTrouble):
        folder.root.check()
    folder.restart()
    folder.root.check()


def test_h14_a_root_may_be_reached_through_a_link(tmp_path: Path) -> None:
    """A person named it; what is below is another matter."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    root = Root.create(os.fsencode(tmp_path / "link"), REPLICA, FOLDER)
    root.check()
    (tmp_path / "link").unlink()
    with pytest.raises(RootTrouble, match="is not there"):
        root.check()
    root.close()


def test_a_missing_directory_is_not_made_a_root(tmp_path: Path) -> None:
    """Nor a file."""
    (tmp_path / "file").write_bytes(b"")
    for name, reason in (("missing", "missing"), ("file", "not a directory")):
        with pytest.raises(RootTrouble) as caught:
            Root.create(os.fsencode(tmp_path / name), REPLICA, FOLDER)
        assert caught.value.reason == reason


def test_control_characters_of_a_path_are_not_printed(tmp_path: Path) -> None:
    """They are escaped in every sentence."""
    with pytest.raises(RootTrouble) as caught:
        Root.create(os.path.join(os.fsencode(tmp_path), b"a\x1b[31m\n\xff"), REPLICA, FOLDER)
    assert r"a\x1b[31m\n\xff is not there" in caught.value.message


def test_retired_and_purged(folder: Folder) -> None:
    """Without its marker it is no root any more; purged, nothing of ours is left."""
    row = folder.stand(b"x", b"old")
    folder.root.remove(b"x", row)
    folder.root.retire()
    assert len(folder.kept()) == 2
    with pytest.raises(RootTrouble):
        folder.root.check()
    again = Folder.make(folder.path)
    assert again.root.identity != folder.root.identity
    again.root.purge()
    again.root.close()
    assert os.listdir(folder.path) == []


def test_i01_what_cannot_be_looked_at_is_no_delete(folder: Folder) -> None:
    """An unreadable directory raises, it does not say that nothing is there."""
    require("root")
    folder.write(b"d/x", b"1")
    os.chmod(folder.at(b"d"), 0)
    os.chmod(folder.path, 0o755)

    def child() -> None:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(PermissionError):
            folder.root.look(b"d/x")
        with pytest.raises(PermissionError):
            folder.root.open_directory(b"d")

    assert in_child(child) == 0


def test_a_root_that_cannot_be_read_or_written_says_so() -> None:
    """Each with its reason."""
    require("root")
    with tempfile.TemporaryDirectory() as reachable:
        os.chmod(reachable, 0o755)
        private, public = Path(reachable, "private"), Path(reachable, "public")
        private.mkdir(mode=0o700)
        public.mkdir(mode=0o755)

        def child() -> None:
            os.setresuid(65534, 65534, 65534)
            for path, reason in ((private, "unreadable"), (public, "unwritable")):
                with pytest.raises(RootTrouble) as caught:
                    Root.create(os.fsencode(path), REPLICA, FOLDER)
                assert caught.value.reason == reason
                assert "permission denied" in caught.value.message

        assert in_child(child) == 0


def test_i17_as_root_all_that_is_made_gets_the_owner_of_the_root(tmp_path: Path) -> None:
    """Files, links, directories, the history and everything in `.p2psync`."""
    require("root")
    os.chown(tmp_path, 1234, 2345)
    folder = Folder.make(tmp_path)
    folder.root.put(folder.prepare(b"1"), b"file", None)
    folder.root.put(folder.prepare(Link(b"t")), b"link", None)
    folder.root.put(folder.prepare(DIRECTORY), b"made", None)
    folder.root.make_directory(b"d")
    folder.root.put(folder.prepare(b"2"), b"d/x", None)
    folder.root.remove(b"d/x", Row(place_of(b"2"), folder.root.look(b"d/x")))
    for parent, directories, files in os.walk(tmp_path):
        for name in [*directories, *files]:
            status = os.lstat(os.path.join(parent, name))
            assert (status.st_uid, status.st_gid) == (1234, 2345), name
    folder.root.close()


def test_t43_others_are_shut_out_of_what_is_ours(folder: Folder) -> None:
    """Also when a copy or a backup has let them in."""
    os.chmod(folder.at(b".p2psync"), 0o755)
    folder.restart()
    assert stat.S_IMODE(os.stat(folder.at(b".p2psync")).st_mode) == 0o700
