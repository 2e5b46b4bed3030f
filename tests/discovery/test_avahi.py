"""Avahi sees us and we see Avahi: from another host, and beside its daemon on our own."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.discovery.speaker import TYPE, Speaker
from tests.support.netns import Lan
from tests.support.require import require

pytestmark = pytest.mark.slow

CONFIG = """[server]
allow-interfaces=eth0
use-ipv4=yes
use-ipv6=no
[wide-area]
enable-wide-area=no
[rlimits]
"""

# its own /run, so that the system's bus and daemon are not met
START = """
mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/avahi-daemon
dbus-daemon --system --nofork --nopidfile &
while ! test -S /run/dbus/system_bus_socket; do sleep 0.01; done
exec avahi-daemon -f "$0" --no-drop-root --no-chroot --no-rlimits
"""


class Avahi:
    """An avahi-daemon with a bus of its own on a test host."""

    def __init__(self, lan: Lan, host: str, config: Path) -> None:
        config.write_text(CONFIG)
        self._lan, self._host = lan, host
        quiet = subprocess.DEVNULL
        argv = ["unshare", "-m", "sh", "-c", START, config]
        self._daemon = lan.popen(host, argv, stdout=quiet, stderr=quiet)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert time.monotonic() < deadline, "avahi-daemon does not start"

    def _answers(self) -> bool:
        asked = self.inside("avahi-browse", "--terminate", "--all")
        return self._lan.run(self._host, asked, check=False).returncode == 0

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", "-t", str(self._daemon.pid), "-m", *argv]

    def publish(self, name: str, port: int, text: str) -> subprocess.Popen[bytes]:
        argv = self.inside("avahi-publish", "-s", name, TYPE, str(port), text)
        quiet = subprocess.DEVNULL
        return self._lan.popen(self._host, argv, stdout=quiet, stderr=quiet)

    def browse(self) -> subprocess.Popen[str]:
        argv = self.inside("avahi-browse", "--resolve", "--parsable", TYPE)
        return self._lan.popen(self._host, argv, stdout=subprocess.PIPE, text=True)


def line_of(browse: subprocess.Popen[str], mark: str, name: str) -> str:
    """Return the next line with this mark ("=" resolved, "-" gone) about a name."""
    assert browse.stdout is not None
    for line in browse.stdout:
        fields = line.split(";")
        if fields[0] == mark and fields[3] == name:
            return line
    raise AssertionError("avahi-browse ended")


@pytest.fixture
def lan() -> Iterator[Lan]:
    require("netns", "multicast", "avahi")
    with Lan("a", "b") as built:
        yield built


@pytest.mark.parametrize("host", ["a", "b"], ids=["beside", "across"])
def test_avahi_browse_sees_us(lan: Lan, tmp_path: Path, host: str) -> None:
    """avahi-browse, on our host or another, resolves what we announce, and sees it go."""
    avahi = Avahi(lan, host, tmp_path / "avahi.conf")
    speaker = Speaker(lan, "a").ready()
    browse = avahi.browse()
    speaker.announce("hello", 4242, key="value")
    line = line_of(browse, "=", "hello")
    assert ";10.77.0.1;4242;" in line
    assert '"key=value"' in line
    speaker.tell("withdraw", name="hello")
    line_of(browse, "-", "hello")


@pytest.mark.parametrize("host", ["a", "b"], ids=["beside", "across"])
def test_we_see_what_avahi_publishes(lan: Lan, tmp_path: Path, host: str) -> None:
    """What avahi-publish offers, on our host or another, is found whole, and its end seen."""
    avahi = Avahi(lan, host, tmp_path / "avahi.conf")
    speaker = Speaker(lan, "a").ready()
    speaker.browse()
    publisher = avahi.publish("theirs", 4343, "key=value")
    found = speaker.hear("found", name="theirs")
    assert lan.address(host) in found["addresses"]
    assert found["port"] == 4343
    assert found["txt"] == {"key": "value"}
    publisher.terminate()
    speaker.hear("lost", name="theirs")


def test_we_find_each_other_with_avahi_on_both_hosts(lan: Lan, tmp_path: Path) -> None:
    """An avahi-daemon on each host takes nothing from us: found within a second, as ever."""
    for host in lan.hosts:
        Avahi(lan, host, tmp_path / f"{host}.conf")
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    a.announce("hello")
    started = b.browse()
    assert b.hear("found", name="hello")["at"] - started < 1.0
