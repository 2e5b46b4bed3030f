"""Two folders on one machine: what a newcomer tries first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.test_moving import edits_arrive
from tests.support.hosts import Host, network, pair, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow


def test_two_folders_of_one_agent(tmp_path: Path) -> None:
    """share and accept under one home join two directories, and keep them after a restart."""
    require("netns", "multicast")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        a.folder.mkdir()
        (a.folder / "hello").write_text("hello")
        other = a.base / "other"
        code, sharing = a.start_share()
        a.accept(code, other)
        assert sharing.end().exit == 0
        assert a.tree(other) == {"hello": b"hello"}
        for word in ("first", "after a restart"):
            for here, there in ((a.folder, other), (other, a.folder)):
                (here / f"{word} {here.name}").write_text(word)
                wait_until(lambda: a.tree() == a.tree(other), f"{word} arrives")
                assert (there / f"{word} {here.name}").read_text() == word
            a.stop()
            a.start()
        assert [f["state"] for f in a.status()["folders"]] == ["up-to-date"] * 2
        assert a.status()["peers"] == []
        a.run("wait", "--timeout", "10")


def test_two_homes_with_only_loopback(tmp_path: Path) -> None:
    """Two agents on a machine without any network find each other over loopback."""
    require("netns", "multicast")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        b = net.add(Host(net.lan, "b", tmp_path, place="a"))
        net.lan.detach("a")
        pair(a, b)
        assert a.transport(b) == "tls"
        edits_arrive(a, b, "local")


@pytest.mark.parametrize("json_wanted", [False, True], ids=["text", "json"])
def test_the_demo_with_only_loopback(json_wanted: bool, tmp_path: Path) -> None:
    """`p2psync demo` shows changes arriving and leaves no process and no file behind."""
    require("netns", "multicast")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        net.lan.detach("a")
        scratch = a.base / "tmp"
        scratch.mkdir()
        a.extra = {"TMPDIR": str(scratch)}
        done = a.run("demo", *(["--json"] if json_wanted else []))
        if json_wanted:
            assert [line["type"] for line in done.lines].count("measured") == 6
            assert json.loads(done.out.splitlines()[-1])["exit"] == 0
        else:
            assert "a rename" in done.err
        assert list(scratch.iterdir()) == []
        assert net.lan.strays() == []
        assert a.pid is None
