"""A transfer that is cut goes on where it was: shown by the bytes on the wire."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.hosts import Host, network, pair, same_trees, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

MIB = 2**20
PIECE = 16 * MIB


def put_film(host: Host, size: int) -> None:
    """Put a file of bytes that nobody has into the folder, all at once."""
    film = host.base / "film"
    with film.open("wb") as out:
        for _ in range(size // PIECE):
            out.write(os.urandom(PIECE))
    film.rename(host.folder / "film")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("killed", "size"), [("receiver", 1024 * MIB), ("sender", 256 * MIB)])
def test_killed_at_half_the_rest_is_sent(killed: str, size: int, tmp_path: Path) -> None:
    """With either agent killed at half of a large file, at most 55 % travel after its start."""
    require("netns", "multicast", "gigabytes")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        victim = b if killed == "receiver" else a
        before = b.received()
        put_film(a, size)
        wait_until(lambda: b.received() - before >= size / 2, "half is there", 90)
        victim.kill9()
        assert not (b.folder / "film").exists()
        assert b.received() - before < 0.75 * size, "killed too late to show anything"
        before = b.received()
        victim.start()
        wait_until((b.folder / "film").exists, "the film is there", 90)
        assert b.received() - before <= 0.55 * size
        assert same_trees(a.folder, b.folder)
        a.wait()
