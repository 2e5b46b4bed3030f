"""Hosts for end-to-end tests: real agents, each with a home of its own, on a LAN of namespaces.

    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        (a.folder / "hello").write_text("hello")
        b.until_content("hello", b"hello")

A test that fails shows what every agent logged. Nothing here sleeps for luck: everything waits
for something, up to a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from p2psync.agent import lock, spawn
from p2psync.cli.output import plain
from p2psync.config.places import Places
from p2psync.control.client import Client
from p2psync.control.messages import GetStatus, Status
from tests.support.netns import Lan

CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
COMMAND_TIMEOUT_S: Final = 60.0
ARRIVAL_TIMEOUT_S: Final = 10.0
NAP_S: Final = 0.01
LOG_LINES: Final = 60
PRIVATE: Final = ".p2psync"


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    exit: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Every line of a `--json` stream; an error if one is not an object with a type."""
        lines = [json.loads(line) for line in self.out.splitlines()]
        assert all(isinstance(line, dict) and line["type"] for line in lines), self.out
        return lines

    @property
    def types(self) -> list[str]:
        """The types of a `--json` stream's lines, each run of equal ones once."""
        kinds = [line["type"] for line in self.lines]
        return [
            kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before
        ]


class Running:
    """A command under way with `--json`; its lines can be waited for while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe, to), daemon=True)
            for pipe, to in ((process.stdout, self._lines), (process.stderr, self._errors))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str], to: list[str]) -> None:
        for line in pipe:
            with self._news:
                to.append(line)
                self._news.notify_all()

    def line(self, kind: str, timeout_s: float = COMMAND_TIMEOUT_S) -> dict[str, Any]:
        """Wait for the first line of this type and return it."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for text in self._lines:
                    line: dict[str, Any] = json.loads(text)
                    if line["type"] == kind:
                        return line
                left = deadline - time.monotonic()
                ended = not any(reader.is_alive() for reader in self._readers)
                assert left > 0, f"no {kind} in {timeout_s} s: {self._said()}"
                assert not ended, f"ended without {kind}: {self._said()}"
                self._news.wait(min(left, 0.2))

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Return the lines of this type that came so far."""
        with self._news:
            said: list[dict[str, Any]] = [json.loads(text) for text in self._lines]
        return [line for line in said if line["type"] == kind]

    def end(self, timeout_s: float = COMMAND_TIMEOUT_S) -> Done:
        """Wait until the command has ended."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended in {timeout_s} s: {self._said()}") from None
        for reader in self._readers:
            reader.join(COMMAND_TIMEOUT_S)
        return Done(code, "".join(self._lines), "".join(self._errors))

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def _said(self) -> str:
        return f"{''.join(self._lines)}\n{''.join(self._errors)}"


class Host:
    """One device: a home, a folder, and the commands typed there."""

    def __init__(self, lan: Lan, name: str, base: Path, *, place: str | None = None) -> None:
        """Be a device on the LAN's host `place` (its own name if None); files go below base."""
        self.lan = lan
        self.name = name
        self.place = place or name
        self.base = base / name
        self.home = self.base / "home"
        self.folder = self.base / "folder"
        self.places = Places(self.home)
        self.wrap: tuple[str, ...] = ()
        """What commands, and the agents they start, are run under."""
        self.extra: dict[str, str] = {}
        """What is added to their environment."""
        self.base.mkdir(parents=True)
        self.home.mkdir(mode=0o700)
        (self.home / "config.toml").write_text(f'name = "{name}"\nlog_level = "debug"\n')

    # commands

    def environment(self) -> dict[str, str]:
        """Return a bare environment, as a login would have it."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.base),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": str(CHECKOUT),
            "P2PSYNC_HOME": str(self.home),
        } | self.extra

    def argv(self, *args: str | Path) -> list[str]:
        """Return the command line that runs `p2psync ARGS` on this host."""
        program = [sys.executable, "-P", "-m", "p2psync", *map(str, args)]
        return self.lan.argv(self.place, [*self.wrap, *program])

    def run(
        self,
        *args: str | Path,
        exit: int | None = 0,  # noqa: A002 - the word users know it by
        timeout_s: float = COMMAND_TIMEOUT_S,
        stdin: str = "",
    ) -> Done:
        """Run a command to its end, which must be with this exit code (None: any)."""
        done = subprocess.run(
            self.argv(*args),
            env=self.environment(),
            cwd=self.base,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        told = Done(done.returncode, done.stdout, done.stderr)
        assert exit in (None, told.exit), f"{self.name}$ p2psync {args}: {told}"
        return told

    def start_command(self, *args: str | Path) -> Running:
        """Start a command with `--json` and let it run."""
        process = subprocess.Popen(
            self.argv(*args, "--json"),
            env=self.environment(),
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lan.owns(process)
        return Running(process)

    def start_share(self, path: Path | None = None) -> tuple[str, Running]:
        """Share a directory (made if missing); return the code and the command."""
        path = path or self.folder
        path.mkdir(exist_ok=True)
        sharing = self.start_command("share", path)
        return sharing.line("code")["code"], sharing

    def accept(
        self,
        code: str,
        path: Path | None = None,
        *,
        timeout_s: float = COMMAND_TIMEOUT_S,
        exit: int = 0,  # noqa: A002 - the word users know it by
    ) -> Done:
        """Accept a code into a directory and wait until it is in sync."""
        return self.run(
            "accept", code, path or self.folder, "--json", exit=exit, timeout_s=timeout_s
        )

    def start(self) -> None:
        """Start the agent."""
        self.run("start")

    def stop(self) -> None:
        """Stop the agent, and make sure that its process is gone."""
        pid = self.pid
        self.run("stop")
        assert pid is None or not _runs(pid)

    # the agent

    @property
    def pid(self) -> int | None:
        """The agent's process id, None when none runs."""
        return lock.holder(self.places.lock) or None

    def kill9(self) -> None:
        """Kill the agent, which gets no chance to do anything."""
        pid = self.pid
        assert pid is not None, f"{self.name}: no agent to kill"
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: self.pid is None, f"{self.name}'s agent is dead")

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        (line,) = self.run("status", "--json").lines
        return line

    def peer(self, other: Host | str) -> dict[str, Any] | None:
        """Return what status says about another device, None when it is no peer.

        Asked of the agent directly: this is called in loops, where a command costs too much.
        """
        name = other if isinstance(other, str) else other.name
        found: list[dict[str, Any]] = []
        with Client(self.places.socket) as client:
            for reply in client.request(GetStatus()):
                if isinstance(reply, Status):
                    found = plain(reply)["peers"]
        return next((peer for peer in found if peer["name"] == name), None)

    def device(self) -> str:
        """Return the DeviceId."""
        found: str = self.status()["device"]
        return found

    def connected(self, other: Host) -> bool:
        """Say whether the other device is connected, over whatever."""
        peer = self.peer(other)
        return peer is not None and bool(peer["transport"])

    def transport(self, other: Host) -> str:
        """Return the transport to the other device, "" when not connected."""
        peer = self.peer(other)
        return peer["transport"] if peer else ""

    def wait(self, timeout_s: float = 30.0) -> None:
        """Run `p2psync wait`."""
        self.run("wait", "--timeout", str(timeout_s), timeout_s=timeout_s + 10)

    def log(self) -> str:
        """Return what the agent logged, and its last words."""
        files = [
            *sorted(self.home.glob("log/agent.log*"), reverse=True),
            self.places.last_words,
        ]
        return "".join(f.read_text(errors="replace") for f in files if f.exists())

    # the folder

    def tree(self, folder: Path | None = None) -> dict[str, bytes | str | None]:
        """Return the folder as path -> content; None for a directory, text for a link."""
        return tree(folder or self.folder)

    def until_content(
        self, path: str, content: bytes | None, timeout_s: float = ARRIVAL_TIMEOUT_S
    ) -> float:
        """Wait until a path holds this content (None: nothing is there); return the seconds."""
        began = time.monotonic()
        wait_until(
            lambda: _content(self.folder / path) == content,
            f"{self.name}: {path} is {content!r:.60}",
            timeout_s,
        )
        return time.monotonic() - began

    # the wire

    def received(self) -> int:
        """Return the bytes that eth0 has received so far, all protocols."""
        return self.lan.wire_bytes(self.place)[0]

    def sent(self) -> int:
        """Return the bytes that eth0 has sent so far, all protocols."""
        return self.lan.wire_bytes(self.place)[1]


class Network:
    """The hosts of one test."""

    def __init__(self, lan: Lan, hosts: Sequence[Host]) -> None:
        self.lan = lan
        self.hosts = list(hosts)

    def add(self, host: Host) -> Host:
        """Take one more device into what is looked after."""
        self.hosts.append(host)
        return host

    def told(self) -> str:
        """Return the end of every agent's log."""
        return "\n".join(
            f"--- log of {host.name}\n" + "\n".join(host.log().splitlines()[-LOG_LINES:])
            for host in self.hosts
        )


BUGS: Final = ("Traceback (most recent call last)", "never awaited", "never retrieved")


@contextlib.contextmanager
def network(base: Path, *names: str) -> Iterator[Network]:
    """Give hosts on one LAN; on failure the logs are attached, and nothing stays behind.

    Passing also means that no agent logged a traceback.
    """
    with Lan(*names) as lan:
        net = Network(lan, [Host(lan, name, base) for name in names])
        try:
            yield net
            with ThreadPoolExecutor() as pool:  # each says goodbye for half a second
                list(pool.map(lambda host: spawn.stop(host.places), net.hosts))
            assert not [bug for host in net.hosts for bug in BUGS if bug in host.log()]
        except BaseException as error:
            error.add_note(net.told())
            raise
    for host in net.hosts:
        shutil.rmtree(host.base, ignore_errors=True)


def pair(sharer: Host, accepter: Host, folder: Path | None = None) -> None:
    """Pair two hosts by a code; both are in sync afterwards. folder: the sharer's."""
    code, sharing = sharer.start_share(folder)
    accepter.accept(code)
    done = sharing.end()
    assert done.exit == 0, done


def wait_until(
    condition: Callable[[], object], what: str, timeout_s: float = ARRIVAL_TIMEOUT_S
) -> None:
    """Wait until the condition holds; AssertionError with `what` after the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(NAP_S)


def tree(folder: Path) -> dict[str, bytes | str | None]:
    """Return a tree as path -> content; None for a directory, text for a link's target.

    Its entry is "(gone)" for what was taken away while we looked: equal to nothing wanted.
    """
    found: dict[str, bytes | str | None] = {}
    for directory, subdirectories, files in os.walk(folder):
        if PRIVATE in subdirectories:
            subdirectories.remove(PRIVATE)
        for name in [*subdirectories, *files]:
            path = Path(directory, name)
            key = str(path.relative_to(folder))
            try:
                if path.is_symlink():
                    found[key] = os.readlink(path)
                else:
                    found[key] = None if path.is_dir() else path.read_bytes()
            except FileNotFoundError:
                found[key] = "(gone)"
    return found


def same_trees(one: Path, other: Path) -> bool:
    """Say whether two folders are equal; files are compared with `diff`, which is fast."""
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", "-q", "-x", PRIVATE, one, other],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"  # some inits bury late


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
