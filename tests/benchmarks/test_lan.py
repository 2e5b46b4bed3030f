"""The long cable is as long as it says, and what it carries arrives whole."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import pytest

from benchmarks.lan import LOSSY, SHAPED, BenchLan, Link, congestion_control
from tests.support.require import require

pytestmark = pytest.mark.slow

SEND = """
import random, socket
c, _ = socket.create_server(("", 4000)).accept()
c.sendall(random.Random(1).randbytes(1_000_000))
"""
TAKE = """
import hashlib, socket, sys, time
while True:
    began = time.monotonic()
    try: s = socket.create_connection((sys.argv[1], 4000), 20); break
    except ConnectionRefusedError: time.sleep(0.02)
connected = time.monotonic()
taken = hashlib.sha256()
while piece := s.recv(65536): taken.update(piece)
print(connected - began, taken.hexdigest())
"""


@pytest.mark.parametrize("link", [SHAPED, LOSSY], ids=["clean", "lossy"])
def test_the_far_host_is_far_and_hears_everything(link: Link, tmp_path: Path) -> None:
    """Connecting takes a round trip at least; a stream arrives whole, whatever is lost."""
    require("netns", "tap")
    with BenchLan("a", "b", link=link, tools=tmp_path) as lan:
        lan.popen("a", [sys.executable, "-c", SEND])
        said = lan.run("b", [sys.executable, "-c", TAKE, lan.address("a")]).stdout
    connect_s, taken = said.split()
    assert float(connect_s) * 1000 >= link.rtt_ms
    assert taken == hashlib.sha256(random.Random(1).randbytes(1_000_000)).hexdigest()


def test_all_hosts_use_one_congestion_control(tmp_path: Path) -> None:
    """Programs are compared before the same network, also behind the long cable."""
    require("netns", "tap")
    with BenchLan("a", "b", link=SHAPED, tools=tmp_path) as lan:
        setting = "/proc/sys/net/ipv4/tcp_congestion_control"
        assert {lan.run(host, ["cat", setting]).stdout.strip() for host in lan.hosts} == {
            congestion_control()
        }
