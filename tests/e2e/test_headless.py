"""An agent without a person, a terminal or a proper machine around it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.test_errors import faketime_library
from tests.e2e.test_moving import edits_arrive
from tests.support.hosts import CHECKOUT, Host, Network, network, pair, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

MIB = 2**20


def fill(host: Host) -> None:
    """Make a small tree with files of every size class."""
    (host.folder / "sub").mkdir(parents=True)
    for number in range(200):
        (host.folder / "sub" / f"{number}").write_text(f"{number}\n" * number)
    (host.folder / "film").write_bytes(bytes(range(256)) * 40_000)


def both_ways(net: Network) -> None:
    """Sync a tree from one side to the other and edits both ways."""
    a, b = net.hosts
    fill(a)
    pair(a, b)
    assert a.tree() == b.tree()
    edits_arrive(a, b, "after", 10)


def test_no_tty_no_home_no_path_umask_one_cpu_little_memory(tmp_path: Path) -> None:
    """An empty environment, umask 077, one CPU and 256 MB for data are enough."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        for host in net.hosts:
            host.wrap = (
                *("setsid", "-w", "env", "-i"),
                f"P2PSYNC_HOME={host.home}",
                f"PYTHONPATH={CHECKOUT}",
                *("prlimit", f"--data={256 * MIB}", "taskset", "-c", "0"),
                *("sh", "-c", 'umask 077; exec "$@"', "sh"),
            )
            host.start()
            assert b"HOME=/" not in Path(f"/proc/{host.pid}/environ").read_bytes().replace(
                b"P2PSYNC_HOME=", b""
            )
            fields = Path(f"/proc/{host.pid}/stat").read_text().rpartition(")")[2].split()
            assert fields[4] == "0", "it has a terminal"
            assert "Umask:\t0077" in Path(f"/proc/{host.pid}/status").read_text()
        both_ways(net)
        for host in net.hosts:
            for file in host.home.rglob("*"):
                assert file.name == "config.toml" or not file.lstat().st_mode & 0o077


def test_a_clock_in_1970(tmp_path: Path) -> None:
    """Two devices, one whose clock starts in 1970, pair and sync, also after a restart."""
    require("netns", "multicast", "faketime")
    with network(tmp_path, "a", "b") as net:
        _, b = net.hosts
        start_in_1970(b)
        both_ways(net)
        b.stop()
        start_in_1970(b)
        edits_arrive(*net.hosts, "again")
        assert "libfaketime" in Path(f"/proc/{b.pid}/maps").read_text()


def start_in_1970(host: Host) -> None:
    """Start the agent only: the library makes absolute sleeps, as commands do them, endless."""
    host.run("stop")
    environment = host.environment() | {
        "LD_PRELOAD": faketime_library(),
        "FAKETIME": "@1970-01-01 00:01:00",
        "DONT_FAKE_MONOTONIC": "1",
    }
    start_agent(host, [], environment)


def start_agent(host: Host, under: list[str], environment: dict[str, str]) -> None:
    """Run the agent in the foreground under something, and wait until it answers."""
    agent = [sys.executable, "-P", "-m", "p2psync", "agent"]
    host.places.log.parent.mkdir(exist_ok=True)
    with host.places.last_words.open("ab") as said:
        host.lan.popen(host.place, [*under, *agent], env=environment, stderr=said)
    wait_until(lambda: host.status()["agent"] == "running", "the agent runs", 30)


@pytest.mark.timeout(180)
def test_fsync_of_30_ms(tmp_path: Path) -> None:
    """With every fsync slowed to 30 ms, as on an SD card, a tree still goes in bulk."""
    require("netns", "multicast", "strace")
    with network(tmp_path, "a", "b") as net:
        calls = "fsync,fdatasync,syncfs"
        slowly = ["-e", f"trace={calls}", "-e", f"inject={calls}:delay_exit=30000"]
        trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", *slowly]
        for host in net.hosts:
            start_agent(host, trace, host.environment())
        both_ways(net)
