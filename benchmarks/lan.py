"""The hosts a benchmark runs on: namespaces on one bridge, the last one behind a longer cable.

    with BenchLan("a", "b", link=SHAPED, tools=work) as lan: ...

A shaped link is the program of `wire.c`, compiled on the spot: it joins two TAP devices in
place of the pair of veths. Every host has the same congestion control for TCP, so that all
programs are equal before the network; a program may still choose another for its own sockets.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.netns import WIRE, Lan

ALLOWED: Final = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
COMPILE_TIMEOUT_S: Final = 60


class Link(NamedTuple):
    """What a cable does to what passes, the same in each direction. loss: a share."""

    words: str
    rtt_ms: float
    mbit_s: int
    loss: float = 0.0
    queue_bytes: int = 500_000


SHAPED: Final = Link("100 Mbit/s, RTT 40 ms", 40, 100)
LOSSY: Final = Link("100 Mbit/s, RTT 50 ms, 0.5 % lost each way", 50, 100, 0.005)


class BenchLan(Lan):
    """A LAN whose last host may be far away."""

    def __init__(self, *hosts: str, link: Link | None, tools: Path) -> None:
        """link: of the last host; None: as fast as the machine. tools: where `wire` is kept."""
        super().__init__(*hosts)
        self.link_kind = link
        self._tools = tools

    def attach(self, host: str) -> None:
        """Plug a host in, by the long cable if it is the far one."""
        if self.link_kind is not None and host == self.hosts[-1]:
            self._attach_far(host, self.link_kind)
        else:
            super().attach(host)
        setting = "/proc/sys/net/ipv4/tcp_congestion_control"
        self.run(host, ["sh", "-c", f"echo {congestion_control()} > {setting}"])

    def _attach_far(self, host: str, link: Link) -> None:
        port = f"port{self.hosts.index(host) + 1}"
        numbers = [link.rtt_ms * 500, link.loss * 1e6, link.mbit_s * 1000, link.queue_bytes]
        wire = self.popen(
            WIRE,
            [compiled_wire(self._tools), port, "far", *(str(int(n)) for n in numbers)],
            stdout=subprocess.PIPE,
        )
        assert wire.stdout is not None
        assert wire.stdout.readline() == b"ready\n", "the wire could not be made"
        self._ip(
            WIRE,
            f"link set {port} addrgenmode none",
            f"link set {port} master bridge",
            f"link set {port} up",
            f"link set far netns {self._holders[host].pid} name eth0",
        )
        self._ip(host, "link set eth0 addrgenmode none", "link set eth0 up")
        self.set_address(host, f"{self._addresses[host]}/24")


def congestion_control() -> str:
    """Return what TCP uses on every host: cubic, or reno where namespaces may not have it."""
    return "cubic" if "cubic" in ALLOWED.read_text().split() else "reno"


def compiled_wire(tools: Path) -> Path:
    """Return the program of `wire.c`, compiled if it was not yet."""
    program = tools / "wire"
    if not program.exists():
        source = Path(__file__).with_name("wire.c")
        fresh = tools / f"wire.{os.getpid()}"
        argv = ["cc", "-O2", "-o", str(fresh), str(source)]
        subprocess.run(argv, check=True, timeout=COMPILE_TIMEOUT_S)
        fresh.rename(program)
    return program
