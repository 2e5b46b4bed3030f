"""TCP dropped or refused on one side or on both: the agents meet all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_moving import edits_arrive
from tests.support.hosts import network, pair, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

SHARER, ACCEPTER = "a", "b"


@pytest.mark.parametrize("refuse", [False, True], ids=["dropped", "refused"])
@pytest.mark.parametrize(
    ("blocked", "transport"),
    [(SHARER, "tls"), (ACCEPTER, "tls"), (SHARER + ACCEPTER, "webrtc")],
    ids=["on the sharer", "on the accepter", "on both"],
)
def test_pairing_and_sync_without_inbound_tcp(
    blocked: str, transport: str, refuse: bool, tmp_path: Path
) -> None:
    """Pairing works with inbound TCP blocked on either side or both, and status tells how."""
    require("netns", "multicast", "nft")
    with network(tmp_path, SHARER, ACCEPTER) as net:
        a, b = net.hosts
        for name in blocked:
            net.lan.block_tcp(name, refuse=refuse)
        a.folder.mkdir()
        (a.folder / "hello").write_text("hello")
        pair(a, b)
        assert (b.folder / "hello").read_text() == "hello"
        assert (a.transport(b), b.transport(a)) == (transport, transport)
        edits_arrive(a, b, "after")


def test_no_tcp_at_all_both_ways(tmp_path: Path) -> None:
    """With every TCP packet dropped from the start, none passes and everything works."""
    require("netns", "multicast", "nft")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        for host in net.hosts:
            net.lan.block_tcp(host.name, both=True)
        a.folder.mkdir()
        (a.folder / "film").write_bytes(bytes(range(256)) * 20_000)
        pair(a, b)
        assert a.tree() == b.tree()
        assert (a.transport(b), b.transport(a)) == ("webrtc", "webrtc")
        edits_arrive(a, b, "after")
        for host in net.hosts:
            counted = net.lan.counters(host.name)
            assert (counted.tcp_in.packets, counted.tcp_out.packets) == (0, 0)
            assert counted.udp_in.size_bytes > 1_000


@pytest.mark.timeout(240)
def test_a_firewall_that_comes_and_goes(tmp_path: Path) -> None:
    """TCP blocked while in sync: WebRTC takes over; TCP back: TLS does, in about a minute."""
    require("netns", "multicast", "nft")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        assert a.transport(b) == "tls"
        for host in net.hosts:
            net.lan.block_tcp(host.name, both=True)
        edits_arrive(a, b, "blocked", 60)
        assert (a.transport(b), b.transport(a)) == ("webrtc", "webrtc")
        for host in net.hosts:
            net.lan.unblock_tcp(host.name)
        wait_until(lambda: a.transport(b) == b.transport(a) == "tls", "TLS again", 75)
        edits_arrive(a, b, "after")
