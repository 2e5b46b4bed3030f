"""p2psync: two agents of this checkout, over TLS, or over WebRTC where TCP is blocked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.lan import BenchLan
from benchmarks.probe import CaseError, until
from benchmarks.programs.base import FIRST_SYNC_TIMEOUT_S, Ground
from p2psync.control.client import Client
from p2psync.control.messages import FolderInfo, GetStatus, Status
from tests.support.hosts import Host

POLL_S = 0.02


class P2PSync:
    """Two agents; what is timed is what a person sees: share, code, accept, up to date."""

    transport = "tls"

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"p2psync {self.transport}"

    def start(self, ground: Ground) -> None:
        """Start both agents."""
        self.ground = ground
        self.a = agent_host(ground.lan, "a", ground.scratch, ground.source)
        self.b = agent_host(ground.lan, "b", ground.scratch, ground.target)
        for host in (self.a, self.b):
            host.start()

    def first_sync(self) -> None:
        """Share and accept; `accept` returns when everything is there and durable."""
        code, sharing = self.a.start_share()
        self.b.accept(code, timeout_s=FIRST_SYNC_TIMEOUT_S)
        self.finish = sharing.end

    def settle(self) -> None:
        """Wait until both commands would say "up to date", over the transport that is meant."""
        done = self.finish()
        if done.exit:
            raise CaseError(f"share ended with {done.exit}: {done.out[-500:]}{done.err[-500:]}")
        self.a.wait(FIRST_SYNC_TIMEOUT_S)
        if (used := self.a.transport(self.b)) != self.transport:
            raise CaseError(f"connected by {used or 'nothing'}, not by {self.transport}")

    def update(self, arrived: Callable[[], bool], timeout_s: float) -> None:
        """Wait: the watcher sees the change."""
        until(arrived, f"the change arrives by {self.name}", timeout_s)


class P2PSyncWebRtc(P2PSync):
    """The same where no TCP packet passes."""

    transport = "webrtc"

    def start(self, ground: Ground) -> None:
        """Block TCP on both hosts first."""
        for host in ("a", "b"):
            ground.lan.block_tcp(host, both=True)
        super().start(ground)


def agent_host(lan: BenchLan, name: str, scratch: Path, folder: Path) -> Host:
    """Return a device with a fresh home and this folder; its agent logs as by default."""
    host = Host(lan, name, scratch)
    host.folder = folder
    (host.home / "config.toml").write_text(f'name = "{name}"\n')
    return host


def agent_pid(host: Host) -> int:
    """Return the process id of a host's agent, which must run."""
    pid = host.pid
    if pid is None:
        raise CaseError(f"the agent of {host.name} has died: {host.log()[-500:]}")
    return pid


def folders(host: Host) -> list[FolderInfo]:
    """Return what the agent says of its folders."""
    return list(_status(host).folders)


def in_sync(host: Host, peers: int = 1) -> bool:
    """Say whether all folders are up to date and so many peers connected that lack nothing."""
    status = _status(host)
    served = [peer for peer in status.peers if peer.transport and not peer.need_files]
    states = {folder.state for folder in status.folders}
    return states == {"up-to-date"} and len(served) == peers


def _status(host: Host) -> Status:
    with Client(host.places.socket) as client:
        for reply in client.request(GetStatus()):
            if isinstance(reply, Status):
                return reply
    raise CaseError(f"the agent of {host.name} told no status")
