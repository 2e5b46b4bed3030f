"""Networks that change under a running agent: the next edit still arrives."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.hosts import Host, network, pair
from tests.support.require import require

pytestmark = pytest.mark.slow

SOON_S = 5.0
DOWN_S = 20.0


def edits_arrive(one: Host, other: Host, word: str, timeout_s: float = SOON_S) -> None:
    """An edit on either side shows on the other within the time."""
    for here, there in ((one, other), (other, one)):
        (here.folder / f"{word} {here.name}").write_text(word)
        there.until_content(f"{word} {here.name}", word.encode(), timeout_s)


@pytest.mark.parametrize("moved", ["a", "b"])
def test_after_a_change_of_address_the_next_edit_arrives(moved: str, tmp_path: Path) -> None:
    """A host that gets another address while in sync has the next edits within 5 s."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        edits_arrive(a, b, "before")
        for number in (100, 200):
            net.lan.set_address(moved, f"10.77.0.{number}/24")
            edits_arrive(a, b, f"at {number}")
            assert a.transport(b) == b.transport(a) == "tls"


def test_a_pulled_cable_that_comes_back_needs_no_restart(tmp_path: Path) -> None:
    """Edits made while the cable was out arrive within 5 s of its return, both ways."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        net.lan.link("a", up=False)
        for host in (a, b):
            (host.folder / f"out {host.name}").write_text("out")
        time.sleep(DOWN_S)  # the outage itself
        assert not (b.folder / "out a").exists()
        net.lan.link("a", up=True)
        came = time.monotonic()
        b.until_content("out a", b"out", SOON_S)
        a.until_content("out b", b"out", came + SOON_S - time.monotonic())
        edits_arrive(a, b, "after")


def test_an_adapter_that_is_taken_out_and_put_back(tmp_path: Path) -> None:
    """With the interface itself gone and back, the next edits arrive within 5 s."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        net.lan.detach("a")
        (a.folder / "alone").write_text("alone")
        a.run("wait", "--timeout", "2", exit=6)
        net.lan.attach("a")
        b.until_content("alone", b"alone", SOON_S)
        edits_arrive(a, b, "after")


def test_agents_started_before_there_was_a_network(tmp_path: Path) -> None:
    """A paired device whose agent starts without any network syncs when it gets one."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        a.stop()
        net.lan.detach("a")
        a.start()
        (a.folder / "alone").write_text("alone")
        net.lan.attach("a")
        b.until_content("alone", b"alone", SOON_S)
        edits_arrive(a, b, "after")
