"""The agent as a process: started, found, ended, killed, and started again."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.agent import lock, spawn
from p2psync.config.places import Places
from p2psync.control.client import Client
from p2psync.errors import UserError
from tests.cli.conftest import Shell

PATIENCE_S = 20.0


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Shell]:
    """A shell for a fresh home, whose agent is ended whatever the test did."""
    shell = Shell(Places(tmp_path / "home"), tmp_path)
    yield shell
    spawn.stop(shell.places)


def agent_pid(shell: Shell) -> int:
    with Client(shell.places.socket) as client:
        return client.agent_pid


def runs(pid: int) -> bool:
    """Return whether the process runs; one that init has not buried yet does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def until(condition: object) -> None:
    """Wait until the condition (a callable) holds."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_start_and_stop_are_done_when_they_return(home: Shell) -> None:
    """After start the agent answers, after stop its process is gone; twice is the same."""
    first, second = home("start"), home("start")
    pid = agent_pid(home)
    stopped, again = home("stop"), home("stop")

    assert [first.exit, second.exit, stopped.exit, again.exit] == [0, 0, 0, 0], first.err
    assert "already" in second.err
    assert "No agent was running" in again.err
    assert not runs(pid)


def test_the_agent_leaves_its_caller_behind(home: Shell) -> None:
    """Own session, no terminal, no secret of the caller in its environment, known argv."""
    home("start", P2PSYNC_CODE="one-two-three-four", NOTIFY_SOCKET="/nowhere")
    process = Path(f"/proc/{agent_pid(home)}")

    argv = (process / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    environ = (process / "environ").read_bytes().split(b"\0")
    assert argv[-2:] == [b"p2psync", b"agent"]
    assert f"P2PSYNC_HOME={home.places.home}".encode() in environ
    assert not [one for one in environ if one.startswith((b"P2PSYNC_CODE", b"NOTIFY"))]
    session, terminal = (process / "stat").read_text().rpartition(")")[2].split()[3:5]
    assert session != str(os.getsid(0))
    assert terminal == "0"
    assert os.readlink(process / "cwd") == "/"
    assert os.readlink(process / "fd" / "0") == "/dev/null"


def test_a_killed_agent_leaves_nothing_in_the_way(home: Shell) -> None:
    """After kill -9 status says that none runs, and the next start works."""
    home("start")
    pid = agent_pid(home)
    os.kill(pid, signal.SIGKILL)
    until(lambda: lock.holder(home.places.lock) is None)

    status, start = home("status"), home("start")

    assert "not running" in status.out
    assert start.exit == 0, start.err
    assert agent_pid(home) != pid


def test_l15_two_agents_on_one_home_are_refused(home: Shell) -> None:
    """The second says who is first, and harms nothing."""
    home("start")
    pid = agent_pid(home)

    second = home("agent")

    assert second.exit == 8
    assert str(pid) in second.err
    assert agent_pid(home) == pid


def test_l15_starts_at_the_same_time_end_with_one_agent(home: Shell) -> None:
    """All return 0, and all mean the same agent."""
    starts = [home.popen("start") for _ in range(3)]
    outcomes = [(start.communicate(timeout=60), start.returncode) for start in starts]

    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert lock.holder(home.places.lock) == agent_pid(home)


def foreground(home: Shell, **environ: str) -> subprocess.Popen[str]:
    """Start `p2psync agent` and wait until it answers."""
    agent = subprocess.Popen(
        home.argv("agent"),
        env=home.environment(**environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: agent.poll() is not None or spawn.answering(home.places))
    return agent


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_l11_a_signal_ends_the_agent_in_time(home: Shell, name: str) -> None:
    """Within five seconds, with exit code 0, the socket gone."""
    agent = foreground(home)
    began = time.monotonic()

    agent.send_signal(signal.Signals[name])
    out, err = agent.communicate(timeout=10)

    assert agent.returncode == 0, err
    assert time.monotonic() - began < 5
    assert out == ""
    assert f"stopping: {name}" in err
    assert not home.places.socket.exists()


def test_systemd_is_told_ready_alive_and_stopping(home: Shell, tmp_path: Path) -> None:
    """READY when it answers, WATCHDOG while it works, STOPPING when asked to end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_S)
        agent = foreground(home, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        told = [manager.recv(1000) for _ in range(3)]
        home("stop")
        while told[-1] != b"STOPPING=1":
            told.append(manager.recv(1000))
        agent.communicate(timeout=10)

    assert f"READY=1\nMAINPID={agent.pid}".encode() in told
    assert told.count(b"WATCHDOG=1") >= 2
    assert agent.returncode == 0


def test_i17_a_strange_environment_is_no_obstacle(home: Shell) -> None:
    """No HOME, no PATH to speak of, umask 077, no terminal, no D-Bus."""
    bare = {
        name: value
        for name, value in home.environment().items()
        if name in ("P2PSYNC_HOME", "PYTHONPATH")
    }
    done = subprocess.run(
        ["/bin/sh", "-c", 'umask 077; exec "$@"', "sh", *home.argv("start")],
        env=bare,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert home("status").exit == 0


def test_t39_nothing_in_the_home_is_for_others(home: Shell) -> None:
    """Every directory, key, database, socket and log: for the owner only."""
    home("start", "-v")
    home("stop")

    open_to_others = [
        path
        for path in home.places.home.rglob("*")
        if path.is_dir() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    assert open_to_others == []
    assert stat.S_IMODE(home.places.home.stat().st_mode) == 0o700


def test_a_start_that_fails_says_why(home: Shell) -> None:
    """The agent's own sentence, exit code 8."""
    home.places.create()
    home.places.config.write_text("name = 3\n")

    done = home("start")

    assert done.exit == 8
    assert done.err.startswith("Error: ")
    assert "name must be a text in quotes" in done.err


def test_an_agent_that_hangs_is_still_ended(home: Shell) -> None:
    """stop first asks, then insists."""
    home("start")
    pid = agent_pid(home)
    os.kill(pid, signal.SIGSTOP)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("p2psync.control.client.ANSWER_TIMEOUT_S", 0.3)
        patched.setattr(spawn, "STOP_TIMEOUT_S", 0.5)
        with pytest.raises(UserError, match="does not answer"):
            spawn.answering(home.places)
        assert spawn.stop(home.places)

    assert not runs(pid)


def test_a_new_id_needs_the_agent_to_be_ended(home: Shell) -> None:
    """Nobody changes keys under a running agent."""
    home("start")

    done = home("id", "--new")

    assert done.exit == 8
    assert "p2psync stop" in done.err
