"""An ssh server and a client for it, in namespaces, without touching the machine's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.lan import BenchLan
from benchmarks.probe import until

START_TIMEOUT_S: Final = 10.0

SERVER: Final = """\
Port 22
HostKey {place}/host
AuthorizedKeysFile {place}/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
"""
CLIENT: Final = """\
Host *
  IdentityFile {place}/user
  UserKnownHostsFile {place}/known
  StrictHostKeyChecking accept-new
  BatchMode yes
  ConnectTimeout 10
"""


class Remote:
    """Host "b" as seen from "a" over ssh."""

    def __init__(self, lan: BenchLan, place: Path) -> None:
        """Start the server with keys made on the spot; it ends with the LAN."""
        place.mkdir(parents=True)
        self.config = place / "config"
        self.address = lan.address("b")
        for key in ("host", "user"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / key)]
            subprocess.run(argv, check=True, timeout=START_TIMEOUT_S)
        (place / "server").write_text(SERVER.format(place=place))
        self.config.write_text(CLIENT.format(place=place))
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "sshd"
        # it insists on a directory in /run: one of its own, which nobody else sees
        inside = f"mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec {program} -D -e -f $0"
        with (place / "log").open("wb") as log:
            lan.popen("b", ["unshare", "-m", "sh", "-c", inside, place / "server"], stderr=log)
        until(
            lambda: (
                lan.run("a", [*self.ssh, self.address, "true"], check=False).returncode == 0
            ),
            "the ssh server answers",
            START_TIMEOUT_S,
            0.05,
        )

    @property
    def ssh(self) -> list[str]:
        """The command line of the client, without the host."""
        return ["ssh", "-F", str(self.config)]
