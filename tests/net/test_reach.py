"""Two devices on a LAN of namespaces reach each other, whatever is blocked between them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import Lan
from tests.support.require import require


def start(lan: Lan, host: str, role: str, directory: Path) -> subprocess.Popen[Any]:
    """Start a device on a host."""
    program = [sys.executable, "-m", "tests.net.reach_program", directory / host, role]
    return lan.popen(host, program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def meeting(lan: Lan, directory: Path) -> dict[str, Any]:
    """Let a dial b; return what a says of it."""
    b = start(lan, "b", "answer", directory)
    a = start(lan, "a", "dial", directory)
    for one, other in ((a, b), (b, a)):
        assert one.stdout is not None
        assert other.stdin is not None
        other.stdin.write(one.stdout.readline())
        other.stdin.flush()
    assert a.stdout is not None
    said = a.stdout.readline()
    assert said, "the dialling device failed"
    return dict(json.loads(said))


@pytest.mark.slow
@pytest.mark.parametrize("ipv6", [False, True])
def test_on_a_plain_lan_devices_meet_over_tls(tmp_path: Path, ipv6: bool) -> None:
    """Nothing blocked: TLS, at once."""
    require("netns", "multicast")
    with Lan("a", "b", ipv6=ipv6) as lan:
        met = meeting(lan, tmp_path)
    assert met["transport"] == "tls"
    assert met["echoed"]
    assert met["took"] < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("refuse", [False, True])
def test_with_tcp_blocked_on_both_sides_devices_meet_over_webrtc(
    tmp_path: Path, refuse: bool
) -> None:
    """No TCP passes either way: envelopes go by multicast, the channel over UDP."""
    require("netns", "multicast", "nft")
    with Lan("a", "b") as lan:
        for host in ("a", "b"):
            lan.block_tcp(host, both=True, refuse=refuse)
        met = meeting(lan, tmp_path)
        tcp = lan.counters("b").tcp_in.packets
    assert met["transport"] == "webrtc"
    assert met["echoed"]
    assert met["took"] < 5.0
    assert tcp == 0
