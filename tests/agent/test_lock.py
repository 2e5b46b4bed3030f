"""One agent per home."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from p2psync.agent import lock
from p2psync.errors import ExitCode, UserError


def test_l15_the_lock_has_one_holder(tmp_path: Path) -> None:
    """A second one is refused with the first one's pid and what to do."""
    file = tmp_path / "agent.lock"
    with lock.held(file):
        assert lock.holder(file) is not None
        with pytest.raises(UserError, match="p2psync stop") as caught, lock.held(file):
            raise AssertionError("two holders")

    assert caught.value.exit_code == ExitCode.NO_AGENT
    assert lock.holder(file) is None


@pytest.mark.parametrize("text", ["", "1\n", "not a pid", "9" * 1000])
def test_l15_stale_or_garbled_text_blocks_nobody(tmp_path: Path, text: str) -> None:
    """What counts is who holds the lock, not what the file says."""
    file = tmp_path / "agent.lock"
    file.write_text(text)

    assert lock.holder(file) is None
    with lock.held(file):
        pass


def test_l15_a_killed_holder_leaves_the_lock_free(tmp_path: Path) -> None:
    """The kernel gives the lock back, however its holder died."""
    file = tmp_path / "agent.lock"
    program = (
        "import sys, pathlib\n"
        "from p2psync.agent import lock\n"
        "with lock.held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert lock.holder(file) == holder.pid
        holder.kill()

    assert lock.holder(file) is None


def test_t39_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    """Nobody gets a file of ours truncated by a link."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "agent.lock").symlink_to(victim)

    with pytest.raises(OSError, match="symbolic"), lock.held(tmp_path / "agent.lock"):
        pass
    assert victim.read_text() == "precious"
