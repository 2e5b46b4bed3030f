"""Two devices on a LAN: paired by one code, and equal from then on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.hosts import Host, network, pair, same_trees, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

INCLUDE = Path("/usr/include")


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
