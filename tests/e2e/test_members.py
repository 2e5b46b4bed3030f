"""More than two devices: any topology, and devices that are forgotten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.hosts import Host, network, pair, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

ALL_S = 20.0


def until_all_equal(hosts: Sequence[Host], what: str, timeout_s: float = ALL_S) -> None:
    first, *others = hosts
    wait_until(lambda: all(first.tree() == o.tree() for o in others), what, timeout_s)


def everybody_writes(hosts: Sequence[Host], word: str) -> None:
    """A file made on each host shows on all of them."""
    for host in hosts:
        (host.folder / f"{word} {host.name}").write_text(word)
    wanted = {f"{word} {host.name}" for host in hosts}
    for host in hosts:
        wait_until(lambda h=host: wanted <= set(h.tree()), f"{wanted} on {host.name}", ALL_S)


def test_two_who_never_shared_a_code_sync_without_the_third(tmp_path: Path) -> None:
    """A pairs with B and with C, A is stopped, an edit on B reaches C, also after restarts."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b", "c") as net:
        a, b, c = net.hosts
        pair(a, b)
        pair(a, c)
        wait_until(lambda: b.peer(c) and c.peer(b), "b and c know of each other")
        a.stop()
        everybody_writes([b, c], "without a")
        for host in (b, c):
            host.stop()
            host.start()
        everybody_writes([b, c], "after restarts")
        a.start()
        until_all_equal(net.hosts, "a caught up")


def test_four_devices_in_a_chain(tmp_path: Path) -> None:
    """With packets only between neighbours, changes and deletes reach the other end."""
    require("netns", "multicast", "nft")
    with network(tmp_path, "a", "b", "c", "d") as net:
        a, b, c, d = net.hosts
        for host, others in (("a", "cd"), ("b", "d"), ("c", "a"), ("d", "ab")):
            net.lan.separate(host, *others)
        for here, there in ((a, b), (b, c), (c, d)):
            pair(here, there)
        everybody_writes(net.hosts, "first")
        assert not a.connected(c)
        assert not a.connected(d)
        (d.folder / "first a").unlink()
        (a.folder / "first d").write_text("edited at the other end")
        wait_until(lambda: "first a" not in a.tree(), "deleted at the other end", ALL_S)
        d.until_content("first d", b"edited at the other end", ALL_S)
        until_all_equal(net.hosts, "the chain")
        assert not [path for path in a.tree() if "conflict" in path]


def test_four_devices_in_a_ring(tmp_path: Path) -> None:
    """In a ring, and in the line that is left when it is cut, all become equal."""
    require("netns", "multicast", "nft")
    with network(tmp_path, "a", "b", "c", "d") as net:
        a, b, c, d = net.hosts
        for host, opposite in (("a", "c"), ("b", "d"), ("c", "a"), ("d", "b")):
            net.lan.separate(host, opposite)
        for here, there in ((a, b), (b, c), (c, d)):
            pair(here, there)
        wait_until(lambda: a.connected(d), "the ring closes", ALL_S)
        everybody_writes(net.hosts, "ring")
        net.lan.separate("a", "c", "d")
        net.lan.separate("d", "b", "a")
        everybody_writes(net.hosts, "cut")
        for host in net.hosts:
            host.stop()
        for host in net.hosts:
            (host.folder / "same").write_text(f"by {host.name}")
        for host in net.hosts:
            host.start()
        wait_until(lambda: len(contents_of_same(a)) == 4, "every content on a", ALL_S)
        until_all_equal(net.hosts, "winner and three copies")


def contents_of_same(host: Host) -> set[bytes | str | None]:
    return {content for path, content in host.tree().items() if path.startswith("same")}


def test_a_forgotten_device_is_cut_off_and_can_come_back(tmp_path: Path) -> None:
    """`forget` cuts a device within a second, everywhere; a new code lets it in again."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b", "c") as net:
        a, b, c = net.hosts
        pair(a, b)
        pair(a, c)
        wait_until(lambda: b.connected(c) and c.connected(b), "b and c are connected")
        a.run("forget", b.device())
        forgotten = time.monotonic()
        while b.connected(a) or b.connected(c):
            assert time.monotonic() - forgotten < 1.0, "still connected"
        (b.folder / "by b").write_text("b")
        (a.folder / "by a").write_text("a")
        c.until_content("by a", b"a")
        (c.folder / "by c").write_text("c")
        a.until_content("by c", b"c")
        assert not {"by a", "by c"} & set(b.tree())
        assert "by b" not in a.tree() | c.tree()
        for host in (a, c):
            peer = host.peer(b)
            assert peer is None or not peer["transport"]
        for host in (a, b, c):
            host.stop()
            host.start()
        wait_until(lambda: a.connected(c), "a and c meet again")
        assert not a.connected(b)
        pair(a, b)
        everybody_writes(net.hosts, "back")
        until_all_equal(net.hosts, "all three")
        assert "by b" in a.tree()
