"""`p2psync demo`, for real: two agents, mDNS on loopback, TLS, and nothing left of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.support.netns import Lan
from tests.support.require import require

pytestmark = pytest.mark.slow


def test_the_demo_shows_edits_arriving_and_cleans_up(shell: Shell, tmp_path: Path) -> None:
    """On a machine with nothing but loopback: paired, five changes measured, all gone after."""
    require("netns", "multicast")
    places = tmp_path / "tmp"
    places.mkdir()
    with Lan("alone") as lan:
        lan.link("alone", up=False)
        done = lan.run(
            "alone",
            [sys.executable, "-P", "-m", "p2psync", "--json", "demo"],
            env=shell.environment(TMPDIR=str(places)),
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]

        assert lines[-1] == {"type": "result", "exit": 0, "error": None}
        measured = [line for line in lines if line["type"] == "measured"]
        assert len(measured) == 6
        assert all(0 < line["ms"] < 15_000 for line in measured)
        assert list(places.iterdir()) == []
        assert lan.strays() == []
