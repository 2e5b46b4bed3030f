"""Syncthing, set up to meet by address alone and to look as soon as it can be told to.

Watcher delay 1 s (its least; the default is 10), normal priority, no discovery, relays or NAT
traversal. Its REST API is asked over a Unix socket, as it lives in another namespace.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.lan import BenchLan
from benchmarks.probe import until
from benchmarks.programs.base import FIRST_SYNC_TIMEOUT_S, Ground
from benchmarks.trees import files_in

START_TIMEOUT_S: Final = 60.0
REQUEST_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
WATCHER_S: Final = 3.0  # a change before it watches is seen an hour later
FOLDER: Final = "bench"

CONFIG: Final = """\
<configuration version="36">
  {devices}
  <gui enabled="true" tls="false">
    <address>{socket}</address><unixSocketPermissions>0600</unixSocketPermissions>
    <apikey>{key}</apikey>
  </gui>
  <options>
    <listenAddress>tcp://0.0.0.0:22000</listenAddress>
    <globalAnnounceEnabled>false</globalAnnounceEnabled>
    <localAnnounceEnabled>false</localAnnounceEnabled>
    <relaysEnabled>false</relaysEnabled>
    <natEnabled>false</natEnabled>
    <reconnectionIntervalS>1</reconnectionIntervalS>
    <startBrowser>false</startBrowser>
    <urAccepted>-1</urAccepted>
    <autoUpgradeIntervalH>0</autoUpgradeIntervalH>
    <crashReportingEnabled>false</crashReportingEnabled>
    <setLowPriority>false</setLowPriority>
  </options>
</configuration>
"""
DEVICE: Final = '<device id="{id}" name="{name}"><address>{address}</address></device>'


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=REQUEST_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Instance:
    """One Syncthing on one host."""

    def __init__(self, lan: BenchLan, host: str, home: Path) -> None:
        """Make its key; `launch` starts it when all keys are known."""
        self.lan, self.host, self.home = lan, host, home
        self.key = secrets.token_hex(16)
        self.socket = home / "api"
        home.mkdir(parents=True)
        generate = ["generate", "--no-default-folder", "--skip-port-probing"]
        self._run(*generate, f"--home={home}")
        self.id = self._run("serve", f"--home={home}", "--device-id").strip()

    def _run(self, *arguments: str) -> str:
        return self.lan.run(
            self.host, ["env", f"HOME={self.home}", "syncthing", *arguments]
        ).stdout

    def launch(self, others: Sequence[Instance]) -> None:
        """Start it, knowing the others."""
        devices = [
            DEVICE.format(
                id=each.id, name=each.host, address=f"tcp://{self.lan.address(each.host)}:22000"
            )
            for each in (self, *others)
        ]
        text = CONFIG.format(devices="\n  ".join(devices), socket=self.socket, key=self.key)
        (self.home / "config.xml").write_text(text)
        self.start()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        # "monitored": without a second process whose only task is to start it again
        environ = [f"HOME={self.home}", "STNOUPGRADE=1", "STMONITORED=yes"]
        argv = ["env", *environ, "syncthing", "serve"]
        options = ["--no-browser", "--no-restart", f"--home={self.home}"]
        with (self.home / "log").open("ab") as log:
            self.process = self.lan.popen(
                self.host, [*argv, *options], stdout=log, stderr=subprocess.STDOUT
            )
        until(self._answers, f"Syncthing on {self.host} answers", START_TIMEOUT_S, POLL_S)

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(START_TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            return bool(self.ask("GET", "/rest/system/ping"))
        except OSError:
            return False

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Call the REST API; return what the JSON says, None if nothing."""
        connection = _UnixConnection(self.socket)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"X-API-Key": self.key})
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, f"Syncthing: {method} {path}: {answer.status} {said!r}"
            return json.loads(said) if said else None
        finally:
            connection.close()

    def connected(self) -> int:
        """Return how many others are connected."""
        found = self.ask("GET", "/rest/system/connections")["connections"]
        return sum(each["connected"] for each in found.values())

    def add_folder(self, path: Path, ids: Sequence[str]) -> None:
        """Share a directory with these devices."""
        folder = {
            "id": FOLDER,
            "path": str(path),
            "fsWatcherEnabled": True,
            "fsWatcherDelayS": 1,
            "devices": [{"deviceID": each} for each in ids],
        }
        self.ask("PUT", f"/rest/config/folders/{FOLDER}", folder)

    def up_to_date(self, files: int = 0) -> bool:
        """Say whether the folder is idle, lacks nothing and knows at least so many files."""
        found = self.ask("GET", f"/rest/db/status?folder={FOLDER}")
        known = found["globalFiles"] + found["globalSymlinks"]
        idle = found["state"] == "idle" and found["needTotalItems"] == 0
        return bool(idle and known >= files)


class Syncthing:
    """Two instances, connected before the folder is shared."""

    name = "Syncthing"

    def start(self, ground: Ground) -> None:
        """Start both and let them connect."""
        self.ground = ground
        self.a, self.b = started(ground.lan, ground.scratch, "a", "b")

    def first_sync(self) -> None:
        """Share the folder on both sides; it makes each file durable by itself."""
        files = files_in(self.ground.source)
        ids = [self.a.id, self.b.id]
        self.ground.target.mkdir(exist_ok=True)
        self.b.add_folder(self.ground.target, ids)
        self.a.add_folder(self.ground.source, ids)
        self._until_equal(files)

    def settle(self) -> None:
        """Wait until both lack nothing and watch: that begins unannounced after a scan."""
        self._until_equal(0)
        time.sleep(WATCHER_S)

    def update(self, arrived: Callable[[], bool], timeout_s: float) -> None:
        """Wait: its watcher sees the change."""
        until(arrived, "the change arrives by Syncthing", timeout_s)

    def _until_equal(self, files: int) -> None:
        until(
            lambda: self.b.up_to_date(files) and self.a.up_to_date(files),
            "Syncthing is in sync",
            FIRST_SYNC_TIMEOUT_S,
            POLL_S,
        )


def started(lan: BenchLan, scratch: Path, *hosts: str) -> list[Instance]:
    """Start an instance on each host; return them when all are connected with all."""
    made = [Instance(lan, host, scratch / f"syncthing-{host}") for host in hosts]
    for one in made:
        one.launch([other for other in made if other is not one])
    for one in made:
        until(
            lambda one=one: one.connected() == len(made) - 1,  # type: ignore[misc]
            "the Syncthings connect",
            START_TIMEOUT_S,
            POLL_S,
        )
    return made
