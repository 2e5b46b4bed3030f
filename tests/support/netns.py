"""A LAN for tests: namespaces on one bridge, built in 50 ms and gone without a trace.

    with Lan("a", "b") as lan:
        agent = lan.popen("a", [sys.executable, "-m", "p2psync", "agent"])
        lan.run("b", ["ping", "-c1", lan.address("a")])
        lan.link("a", up=False)                  # somebody pulls the cable

The namespaces have no names: each is held open by one process that ends when its input is
closed, so parallel test runs never meet and a killed one leaves nothing behind. Needs root, or
user namespaces (`require("netns")`).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.support.require import unshare

RUN_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 5.0
WIRE: Final = "(wire)"

COUNTERS: Final = """
table inet count {
  counter tcp_in {}
  counter tcp_out {}
  counter udp_in {}
  counter udp_out {}
  chain c_in {
    type filter hook input priority 100
    iifname eth0 meta l4proto tcp counter name tcp_in
    iifname eth0 meta l4proto udp counter name udp_in
  }
  chain c_out {
    type filter hook output priority 100
    oifname eth0 meta l4proto tcp counter name tcp_out
    oifname eth0 meta l4proto udp counter name udp_out
  }
}
"""
"""Counts what passes the blocking chain below, which comes first."""


class Traffic(NamedTuple):
    """What passed a host's eth0 in one direction with one protocol."""

    packets: int
    size_bytes: int  # with IP headers


class Counters(NamedTuple):
    """What a host let in and out since it was built; blocked packets are not counted."""

    tcp_in: Traffic
    tcp_out: Traffic
    udp_in: Traffic
    udp_out: Traffic


class Lan:
    """Hosts on one bridge; each has `lo` and `eth0` with 10.77.0.N/24 (and fd77::N/64)."""

    def __init__(self, *hosts: str, ipv6: bool = False) -> None:
        """Name the hosts; they come up in `with`.

        Args:
            hosts: their names, "a" and "b" if none are given.
            ipv6: give every host a link-local and a unique local address as well.
        """
        self.hosts = hosts or ("a", "b")
        self.ipv6 = ipv6
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._processes: list[subprocess.Popen[Any]] = []
        self._addresses = {host: f"10.77.0.{n}" for n, host in enumerate(self.hosts, 1)}

    # building and tearing down

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self._tear_down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tear_down()

    def _build(self) -> None:
        for name in (WIRE, *self.hosts):
            self._hold(name)
        self._ip(
            WIRE,
            "link set lo up",
            "link add bridge type bridge mcast_snooping 0",
            "link set bridge addrgenmode none",
            "link set bridge up",
        )
        for host in self.hosts:
            self._ip(host, "link set lo up")
            self.attach(host)
            if shutil.which("nft"):
                self.nft(host, COUNTERS)

    def _hold(self, name: str) -> None:
        way = unshare()
        assert way is not None, 'no network namespaces: call require("netns") first'
        # the first one makes the user namespace, where root is missing; the others live in it
        start = [*self._into(WIRE, "-U"), "unshare", "-n"] if self._holders else list(way)
        holder = subprocess.Popen(
            [*start, "sh", "-c", "echo; exec cat"],
            start_new_session=True,  # Ctrl-C must not end it before what lives in it is found
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._holders[name] = holder
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n", f"no namespace for {name}"

    def _into(self, name: str, *which: str) -> list[str]:
        if "-U" not in (unshare() or ()):
            which = tuple(flag for flag in which if flag != "-U")
        if not which:
            return []
        pid = str(self._holders[name].pid)
        user = ["--preserve-credentials"] if "-U" in which else []
        return ["nsenter", "-t", pid, *which, *user, "--"]

    def _tear_down(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            try:
                process.wait(END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        self._end_strays()
        for holder in self._holders.values():
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.close()
            holder.stdout.close()
            holder.wait(END_TIMEOUT_S)

    def _end_strays(self) -> None:
        """End what our processes left running in our namespaces: an agent in the background."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + END_TIMEOUT_S
            for pid in self.strays():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            while self.strays() and time.monotonic() < deadline:
                time.sleep(0.02)

    def strays(self) -> list[int]:
        """Return the processes in our namespaces that nobody waits for, by their ids."""
        known = {holder.pid for holder in self._holders.values()}
        ours = {self._namespace(pid) for pid in known}
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        return [pid for pid in pids if pid not in known and self._namespace(pid) in ours]

    @staticmethod
    def _namespace(pid: int) -> str | int:
        try:
            return os.readlink(f"/proc/{pid}/ns/net")
        except OSError:
            return pid  # gone, or not ours to see: like nothing else

    # the hosts

    def address(self, host: str) -> str:
        """Return its IPv4 address now."""
        return self._addresses[host]

    def address6(self, host: str) -> str:
        """Return its unique local IPv6 address."""
        return f"fd77::{self.hosts.index(host) + 1}"

    def argv(self, host: str, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs argv on a host, for those who start it themselves.

        Every step replaces itself by the next, so the process id is the program's own.
        """
        return [*self._into(host, "-U", "-n"), *map(str, argv)]

    def run(
        self,
        host: str,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        stdin: str | None = None,
        timeout: float = RUN_TIMEOUT_S,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host to its end; its output is in `.stdout` and `.stderr`.

        Raises:
            AssertionError: it did not end with 0 and `check` is set; with what it said.
        """
        done = subprocess.run(
            self.argv(host, argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            **options,
        )
        said = f"{done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, f"{argv} on {host}: {done.returncode} {said}"
        return done

    def popen(
        self, host: str, argv: Sequence[str | Path], **options: Any
    ) -> subprocess.Popen[Any]:
        """Start a process on a host; it is ended with the LAN, whatever happens."""
        process = subprocess.Popen(self.argv(host, argv), **options)
        self.owns(process)
        return process

    def owns(self, process: subprocess.Popen[Any]) -> None:
        """End this process with the LAN too."""
        self._processes.append(process)

    # the cable

    def attach(self, host: str) -> None:
        """Put an eth0 into a host and plug it in."""
        n = self.hosts.index(host) + 1
        pid = self._holders[host].pid
        self._ip(
            WIRE,
            f"link add port{n} type veth peer name eth0 netns {pid}",
            f"link set port{n} addrgenmode none",
            f"link set port{n} master bridge",
            f"link set port{n} up",
        )
        self._ip(host, "link set eth0 addrgenmode none", "link set eth0 up")
        self.set_address(host, f"{self._addresses[host]}/24")

    def detach(self, host: str) -> None:
        """Take eth0 out of a host, as a pulled USB adapter does; `attach` brings it back."""
        self._ip(host, "link del eth0")

    def link(self, host: str, up: bool) -> None:
        """Pull a host's cable or plug it in: the carrier goes, the address stays."""
        n = self.hosts.index(host) + 1
        self._ip(WIRE, f"link set port{n} {'up' if up else 'down'}")

    def set_address(self, host: str, cidr: str) -> None:
        """Give eth0 this IPv4 address in place of what it had, as a new DHCP lease does."""
        lines = [
            "addr flush dev eth0",
            f"addr add {cidr} dev eth0",
            "route replace 224.0.0.0/4 dev eth0",
        ]
        if self.ipv6:
            n = self.hosts.index(host) + 1
            lines += [f"addr add {net}::{n}/64 dev eth0 nodad" for net in ("fe80", "fd77")]
        self._ip(host, *lines)
        self._addresses[host] = cidr.split("/")[0]

    def _ip(self, name: str, *lines: str) -> None:
        self.run(name, ["ip", "-batch", "-"], stdin="\n".join(lines) + "\n")

    # the packet filter

    def nft(self, host: str, rules: str) -> None:
        """Load rules into a host's packet filter; needs `require("nft")`."""
        self.run(host, ["nft", "-f", "-"], stdin=rules)

    def block_tcp(self, host: str, *, both: bool = False, refuse: bool = False) -> None:
        """Let no TCP connection in through eth0, or no TCP packet in or out of it.

        Args:
            host: whose filter it is.
            both: also what leaves; else the host may still connect to others.
            refuse: answer with a reset, instead of dropping silently.
        """
        verdict = "reject with tcp reset" if refuse else "drop"
        opening = "" if both else "tcp flags & (syn | ack) == syn "
        rules = [
            "table inet block { }",
            "delete table inet block",
            "table inet block {",
            "  chain c_in {",
            "    type filter hook input priority 0",
            f"    iifname eth0 meta l4proto tcp {opening}{verdict}",
            "  }",
        ]
        if both:
            rules += [
                "  chain c_out {",
                "    type filter hook output priority 0",
                f"    oifname eth0 meta l4proto tcp {verdict}",
                "  }",
            ]
        self.nft(host, "\n".join([*rules, "}"]) + "\n")

    def unblock_tcp(self, host: str) -> None:
        """Undo `block_tcp`."""
        self.nft(host, "table inet block { }\ndelete table inet block\n")

    def separate(self, host: str, *others: str) -> None:
        """Let nothing from these hosts reach this one, multicast included; none: undo it.

        For both directions call it on both sides. Needs `require("nft")`.
        """
        rules = "table inet apart { }\ndelete table inet apart\n"
        if others:
            addresses = ", ".join(self._addresses[other] for other in others)
            rules += f"""table inet apart {{
  chain c_in {{
    type filter hook input priority 0
    ip saddr {{ {addresses} }} drop
  }}
}}
"""
        self.nft(host, rules)

    def wire_bytes(self, host: str) -> tuple[int, int]:
        """Return the bytes that eth0 has received and sent so far, all protocols."""
        text = Path(f"/proc/{self._holders[host].pid}/net/dev").read_text()
        line = next(line for line in text.splitlines() if line.strip().startswith("eth0:"))
        fields = line.split(":")[1].split()
        return int(fields[0]), int(fields[8])

    def counters(self, host: str) -> Counters:
        """Return what passed eth0 so far; needs `require("nft")`."""
        text = self.run(
            host, ["nft", "-j", "list", "counters", "table", "inet", "count"]
        ).stdout
        found = {
            item["counter"]["name"]: Traffic(
                item["counter"]["packets"], item["counter"]["bytes"]
            )
            for item in json.loads(text)["nftables"]
            if "counter" in item
        }
        return Counters(**found)
