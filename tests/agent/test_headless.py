"""The agent on small and strange machines: it starts, shares, syncs and ends."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.agent import spawn
from p2psync.config.places import Places
from tests.cli.conftest import Shell
from tests.support.require import require

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(Places(tmp_path / "home"), tmp_path)
    yield shell
    spawn.stop(shell.places)


@pytest.mark.parametrize(
    ("need", "around"),
    [
        ("faketime", ["faketime", "-f", "@1970-01-02 00:00:00"]),
        (None, ["prlimit", f"--data={256 * 2**20}"]),
        (None, ["taskset", "-c", "0"]),
        (None, ["sh", "-c", 'umask 077; unset HOME XDG_RUNTIME_DIR; exec "$@"', "sh"]),
        (
            "strace",
            [
                *("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"),
                *("-e", "inject=fsync,fdatasync:delay_exit=30000"),
            ],
        ),
    ],
    ids=["in 1970", "256 MB of data", "one processor", "bare environment", "slow fsync"],
)
def test_two_folders_of_one_device_become_equal(
    home: Shell, need: str | None, around: list[str]
) -> None:
    """Share and accept under one home, with an agent that has it hard."""
    if need:
        require(need)
    left, right = home.directory / "left", home.directory / "right"
    left.mkdir()
    (left / "file").write_text("content")
    home.places.create()
    with subprocess.Popen(
        [*around, *home.argv("agent", "-v")],
        env=home.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            until_it_answers(home, agent)
            code = share_and_accept(home)
            assert (right / "file").read_text() == "content"
            assert home("stop").exit == 0
            _, log = agent.communicate(timeout=10)
            assert agent.returncode == 0
            assert code not in log  # t40: no secret in the log, however much it says
        finally:
            agent.kill()


def until_it_answers(home: Shell, agent: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while spawn.answering(home.places) is None:
        if agent.poll() is not None:
            pytest.fail(agent.communicate()[1])
        assert time.monotonic() < deadline
        time.sleep(0.05)


def share_and_accept(home: Shell) -> str:
    """Carry it out on one device; return the code."""
    with home.popen("share", "left") as share:
        try:
            assert share.stdout is not None
            code = share.stdout.readline().strip()
            accept = home("accept", code, "right")
            _, said = share.communicate(timeout=PATIENCE_S)
        finally:
            share.kill()

    assert accept.exit == 0, accept.err
    assert share.returncode == 0, said
    return code
