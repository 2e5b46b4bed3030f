"""Two devices on a LAN: paired by one code, and equal from then on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.hosts import Host, network, pair, same_trees, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

INCLUDE = Path("/usr/include")
MIB = 2**20


def test_a_real_tree_is_shared_accepted_and_equal(tmp_path: Path) -> None:
    """/usr/include goes from one device to the other by one code, and both commands say so."""
    require("netns", "multicast", "usr-include")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        shutil.copytree(INCLUDE, a.folder, symlinks=True)
        code, sharing = a.start_share()
        accepted = b.accept(code)
        shared = sharing.end()
        assert (shared.exit, accepted.exit) == (0, 0)
        assert same_trees(a.folder, b.folder)
        assert a.transport(b) == "tls"
        offer = next(line for line in accepted.lines if line["type"] == "offer")
        assert (offer["name"], offer["folder"]) == ("a", "folder")
        for done in (shared, accepted):
            assert done.lines[-1] == {"type": "result", "exit": 0, "error": None}
            assert {"paired", "state"} <= set(done.types)
        assert shared.types[0] == "code"
        assert accepted.types[0] == "offer"
        states = [host.status()["folders"][0]["state"] for host in (a, b)]
        assert states == ["up-to-date", "up-to-date"]


def test_every_kind_of_change_arrives_from_either_side(tmp_path: Path) -> None:
    """A new file, an edit, a delete, links, modes and type changes arrive both ways."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        for here, there in ((a, b), (b, a)):
            change(here, there, here.name)
        assert same_trees(a.folder, b.folder)
        for host in net.hosts:
            (folder,) = host.status()["folders"]
            assert (folder["state"], folder["conflicts"], folder["problems"]) == (
                "up-to-date",
                [],
                [],
            )


def change(here: Host, there: Host, name: str) -> None:
    file = here.folder / f"{name}.txt"
    file.write_bytes(b"new")
    there.until_content(file.name, b"new")
    file.write_bytes(b"edited, and longer")
    there.until_content(file.name, b"edited, and longer")
    file.chmod(0o755)
    wait_until(lambda: os.access(there.folder / file.name, os.X_OK), "executable there")
    link = here.folder / f"{name}-link"
    link.symlink_to(file.name)
    until_equal(here, there)
    file.unlink()
    link.unlink()
    there.until_content(file.name, None)
    thing = here.folder / f"{name}-thing"
    (thing / "deep" / "er").mkdir(parents=True)
    (thing / "deep" / "er" / "leaf").write_bytes(b"leaf")
    there.until_content(f"{thing.name}/deep/er/leaf", b"leaf")
    shutil.rmtree(thing)
    thing.write_bytes(b"a file now")
    there.until_content(thing.name, b"a file now")
    thing.unlink()
    thing.mkdir()
    (thing / "again").write_bytes(b"a directory again")
    there.until_content(f"{thing.name}/again", b"a directory again")
    shutil.rmtree(thing)
    thing.symlink_to("nowhere")
    until_equal(here, there)


def until_equal(one: Host, other: Host) -> None:
    wait_until(lambda: one.tree() == other.tree(), f"{one.name} and {other.name} are equal")


def test_a_rename_moves_no_content(tmp_path: Path) -> None:
    """Renamed files and directories show under the new name for a few kilobytes on the wire."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        (a.folder / "film").write_bytes(os.urandom(24 * MIB))
        (a.folder / "album").mkdir()
        for number in range(100):
            (a.folder / "album" / f"{number}").write_bytes(os.urandom(64 * 1024))
        pair(a, b)
        for here, there in ((a, b), (b, a)):
            before = there.received()
            (here.folder / "film").rename(here.folder / f"film of {here.name}")
            (here.folder / "album").rename(here.folder / f"album of {here.name}")
            until_equal(here, there)
            assert there.received() - before < 300_000
            (here.folder / f"film of {here.name}").rename(here.folder / "film")
            (here.folder / f"album of {here.name}").rename(here.folder / "album")
            until_equal(here, there)
        assert not list(b.folder.glob("*conflict*"))


def test_both_sides_at_once_make_one_conflict_copy_and_lose_nothing(tmp_path: Path) -> None:
    """A file edited on both sides while apart is both contents on both sides afterwards."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        (a.folder / "note").write_bytes(b"old")
        pair(a, b)
        b.stop()
        (a.folder / "note").write_bytes(b"by a")
        (b.folder / "note").write_bytes(b"by b")
        b.start()
        wait_until(
            lambda: len(a.tree()) == 2 and a.tree() == b.tree(), "winner and copy on both"
        )
        assert set(a.tree().values()) == {b"by a", b"by b"}
        a.run("wait", "--timeout", "20", exit=1)
        for host in net.hosts:
            assert len(host.status()["folders"][0]["conflicts"]) == 1


def test_changes_made_while_an_agent_was_stopped_arrive(tmp_path: Path) -> None:
    """Edits, deletes and renames made with the agent off are found at its start, both ways."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        for name in ("kept", "edited", "deleted", "renamed"):
            (a.folder / name).write_bytes(name.encode())
        pair(a, b)
        for here, there in ((a, b), (b, a)):
            here.stop()
            (here.folder / "edited").write_bytes(f"edited by {here.name}".encode())
            (here.folder / "deleted").unlink()
            (here.folder / "renamed").rename(here.folder / f"renamed by {here.name}")
            (there.folder / f"by {there.name}").write_bytes(b"meanwhile")
            here.start()
            until_equal(here, there)
            assert (here.folder / "edited").read_bytes() == f"edited by {here.name}".encode()
            assert not (there.folder / "deleted").exists()
            (here.folder / "deleted").write_bytes(b"back")
            (here.folder / f"renamed by {here.name}").rename(here.folder / "renamed")
            until_equal(here, there)


def test_existing_files_are_adopted_not_sent(tmp_path: Path) -> None:
    """Accepting into a directory that has the files already moves none of their contents."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        (a.folder / "film").write_bytes(os.urandom(16 * MIB))
        (a.folder / "both").write_bytes(b"as a has it")
        shutil.copytree(a.folder, b.folder)
        (b.folder / "both").write_bytes(b"as b has it")
        (b.folder / "only b").write_bytes(b"stays")
        code, sharing = a.start_share()
        before = b.received()
        b.accept(code, exit=1)
        assert sharing.end().exit == 1
        assert b.received() - before < MIB
        until_equal(a, b)
        contents = list(a.tree().values())
        assert {b"as a has it", b"as b has it", b"stays"} <= set(contents)
        assert len(contents) == 4
