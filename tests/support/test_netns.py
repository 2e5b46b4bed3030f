"""The test LAN does what it says: the tests that stand on it rely on it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.netns import Lan
from tests.support.require import NEEDS, present, require

LISTEN = """
import socket
s = socket.create_server(("", 4000)); print("ready", flush=True)
while True:
    c, _ = s.accept(); c.sendall(b"hello"); c.close()
"""
CONNECT = """
import socket, sys
print(socket.create_connection((sys.argv[1], 4000), 0.5).recv(5).decode())
"""


def listen(lan: Lan, host: str) -> None:
    server = lan.popen(host, [sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"


def connects(lan: Lan, host: str, to: str) -> bool:
    return lan.run(host, [sys.executable, "-c", CONNECT, to], check=False).stdout == "hello\n"


def test_hosts_reach_each_other_until_the_cable_is_pulled() -> None:
    """Two hosts connect over IPv4; with one's cable out they do not; back in they do."""
    require("netns")
    with Lan("a", "b") as lan:
        listen(lan, "a")
        assert connects(lan, "b", lan.address("a"))
        lan.link("a", up=False)
        assert not connects(lan, "b", lan.address("a"))
        lan.link("a", up=True)
        assert connects(lan, "b", lan.address("a"))
        lan.set_address("a", "10.77.0.99/24")
        assert connects(lan, "b", "10.77.0.99")
        assert not connects(lan, "b", "10.77.0.1")


def test_tcp_can_be_blocked_and_is_counted() -> None:
    """Blocked inbound, a host still connects outward; blocked both ways no packet passes."""
    require("netns", "nft")
    with Lan("a", "b") as lan:
        listen(lan, "a")
        listen(lan, "b")
        lan.block_tcp("a")
        assert not connects(lan, "b", lan.address("a"))
        assert connects(lan, "a", lan.address("b"))
        assert lan.counters("a").tcp_in.packets > 0
        lan.block_tcp("a", both=True)
        before = lan.counters("a")
        assert not connects(lan, "a", lan.address("b"))
        assert lan.counters("a").tcp_out == before.tcp_out
        lan.unblock_tcp("a")
        assert connects(lan, "b", lan.address("a"))


def test_a_background_process_ends_with_the_lan() -> None:
    """What a command left behind in a namespace is found there and ended."""
    require("netns")
    with Lan("a") as lan:
        lan.run("a", ["sh", "-c", "sleep 300 >/dev/null 2>&1 &"])
        (stray,) = lan.strays()
    status = Path(f"/proc/{stray}/status")  # of a zombie, where nobody waits for orphans
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_ipv6_is_there_at_once() -> None:
    """With ipv6 the addresses are usable without waiting for duplicate detection."""
    require("netns", "ipv6")
    with Lan("a", "b", ipv6=True) as lan:
        lan.run("a", ["ping", "-6", "-c1", "-W1", lan.address6("b")], check=False)
        started = time.monotonic()
        assert "fd77::2" in lan.run("b", ["ip", "-6", "addr"]).stdout
        assert time.monotonic() - started < 1


def test_every_need_can_be_tried() -> None:
    """Trying a need never raises, and an unknown one is a mistake of the test."""
    for need in NEEDS:
        present(need)
    with pytest.raises(KeyError):
        require("no such thing")
