"""Those that run once and end: cp, rsync over ssh, Unison over ssh; each with a `sync -f`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.probe import CaseError, sync_filesystem
from benchmarks.programs.base import FIRST_SYNC_TIMEOUT_S, Ground
from benchmarks.programs.remote import Remote


class Copying:
    """A command that is run again for every update."""

    name = ""

    def start(self, ground: Ground) -> None:
        """Remember where to work."""
        self.ground = ground

    def first_sync(self) -> None:
        """Run the command and make the filesystem durable."""
        ground = self.ground
        ground.lan.run("a", self.argv(), timeout=FIRST_SYNC_TIMEOUT_S)
        sync_filesystem(ground.target)

    def settle(self) -> None:
        """Nothing goes on after the command has ended."""

    def update(self, arrived: Callable[[], bool], timeout_s: float) -> None:
        """Run it again."""
        self.first_sync()
        if not arrived():
            raise CaseError(f"{self.name} ended without having brought the change")

    def argv(self) -> list[str | Path]:
        """Return the command line."""
        raise NotImplementedError


class Cp(Copying):
    """No network, no second look: what the disk itself costs."""

    name = "cp -a"

    def argv(self) -> list[str | Path]:
        """Copy the contents of the directory."""
        self.ground.target.mkdir(exist_ok=True)
        return ["cp", "-a", f"{self.ground.source}/.", self.ground.target]


class Rsync(Copying):
    """rsync -a over ssh."""

    name = "rsync"
    options: tuple[str, ...] = ()

    def start(self, ground: Ground) -> None:
        """Start the ssh server."""
        super().start(ground)
        self.remote = Remote(ground.lan, ground.scratch / "ssh")

    def argv(self) -> list[str | Path]:
        """Delete too, as a sync does; delta transfer is its default over ssh."""
        to = f"{self.remote.address}:{self.ground.target}/"
        ssh = " ".join(self.remote.ssh)
        source = f"{self.ground.source}/"
        return ["rsync", "-a", "--delete", *self.options, "-e", ssh, source, to]


class WholeRsync(Rsync):
    """rsync that sends changed files whole, which saves it reading them."""

    name = "rsync --whole-file"
    options = ("--whole-file",)


class Unison(Copying):
    """Unison over ssh, without questions."""

    name = "Unison"

    def start(self, ground: Ground) -> None:
        """Start the ssh server; its archives go to the scratch directory on both sides."""
        super().start(ground)
        self.remote = Remote(ground.lan, ground.scratch / "ssh")
        for side in ("local", "remote"):
            (ground.scratch / side).mkdir()

    def argv(self) -> list[str | Path]:
        """Sync the two roots."""
        scratch = self.ground.scratch
        return [
            *("env", f"UNISON={scratch}/local", "unison", "-ui", "text"),
            *("-batch", "-auto", "-silent", "-times", "-confirmbigdel=false"),
            *("-sshargs", f"-F {self.remote.config}"),
            *("-servercmd", f"env UNISON={scratch}/remote unison"),
            self.ground.source,
            f"ssh://{self.remote.address}/{self.ground.target}",
        ]
