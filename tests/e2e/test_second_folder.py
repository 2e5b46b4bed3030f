"""A second folder between two devices that are peers already."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.support.hosts import network, pair, same_trees, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow


def test_declined_by_a_peer_of_another_folder(tmp_path: Path) -> None:
    """`share` says "paired" to nobody whose person declined; it ends with 5, a retry works."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        second = a.base / "second"
        second.mkdir()
        (second / "file").write_text("of the second folder")
        occupied = b.base / "second"
        occupied.mkdir()
        (occupied / "mine").write_text("stays")

        code, sharing = a.start_share(second)
        b.run("accept", code, "--json", exit=2)  # the default place is taken: declined
        done = sharing.end()
        assert done.exit == 5
        assert "paired" not in done.types

        code, sharing = a.start_share(second)
        b.accept(code, b.base / "elsewhere")
        done = sharing.end()
        assert (done.exit, "paired" in done.types) == (0, True)
        assert same_trees(second, b.base / "elsewhere")
        assert (occupied / "mine").read_text() == "stays"


def test_accepted_after_a_while(tmp_path: Path) -> None:
    """A person who thinks before saying yes gets the folder, though the sharing side, a peer
    of another folder, wanted to begin long before."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        second = a.base / "second"
        second.mkdir()
        (second / "file").write_text("of the second folder")
        code, sharing = a.start_share(second)
        person, terminal = pty.openpty()
        accepting = subprocess.Popen(
            b.argv("accept", code),
            env=b.environment(),
            cwd=b.base,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        b.lan.owns(accepting)
        os.close(terminal)
        seen = b""
        while b"[Y/n]" not in seen:
            seen += os.read(person, 4096)
        invited = "b is invited, and told so over the connection there is"
        wait_until(lambda: "second" in str(a.run("devices").out), invited)
        b.run("status")  # and time has passed since
        os.write(person, b"y\n")
        done = sharing.end()
        assert (done.exit, "paired" in done.types) == (0, True)
        assert accepting.wait(20) == 0
        os.close(person)
        assert same_trees(second, b.base / "second")
