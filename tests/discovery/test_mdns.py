"""Announcing and browsing between real processes, by real multicast, in namespaces."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.discovery.speaker import TYPE, Speaker
from tests.support.netns import Lan
from tests.support.require import require

pytestmark = pytest.mark.slow


@pytest.fixture
def lan() -> Iterator[Lan]:
    require("netns", "multicast", "ipv6")
    with Lan("a", "b", ipv6=True) as built:
        yield built


@pytest.fixture
def lonely() -> Iterator[Lan]:
    """One host with nothing but its loopback."""
    require("netns", "multicast")
    with Lan("a") as built:
        built.detach("a")
        yield built


def test_found_at_once_and_lost_with_its_goodbye(lan: Lan) -> None:
    """A service is found within a second, whole, best address first; a goodbye is seen."""
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    started = a.announce("hello", 4242, key="value")
    found = b.hear("found", name="hello")
    assert found["at"] - started < 1.0
    assert found["port"] == 4242
    assert found["txt"] == {"key": "value"}
    if len(found["addresses"]) == 2:  # only the copy by IPv6 tells the link-local one's scope
        found = b.hear("found", name="hello")
    assert found["addresses"] == ["10.77.0.1", "fd77::1", "fe80::1%eth0"]
    said = a.tell("withdraw", name="hello")
    assert b.hear("lost", name="hello")["at"] - said < 1.0


def test_a_late_browser_finds_what_was_announced_long_ago(lan: Lan) -> None:
    """Who starts to browse later asks, and is answered within a second."""
    a = Speaker(lan, "a").ready()
    a.announce("hello")
    b = Speaker(lan, "b").ready()
    started = b.browse()
    assert b.hear("found", name="hello")["at"] - started < 1.0


def test_two_that_start_together_find_each_other(lan: Lan) -> None:
    """Both announce and browse at the same moment; each finds the other within a second."""
    both = [Speaker(lan, "a"), Speaker(lan, "b")]
    for speaker in both:
        speaker.tell("browse", type=TYPE)
        speaker.tell("announce", type=TYPE, name=f"by {id(speaker)}", port=1, txt={})
    started = max(float(one.hear("announcing")["at"]) for one in both)
    for one, other in (both, both[::-1]):
        assert one.hear("found", name=f"by {id(other)}")["at"] - started < 1.0


def test_two_processes_on_a_machine_without_a_network(lonely: Lan) -> None:
    """With only the loopback up, two processes find each other there, and hear goodbyes."""
    one, other = Speaker(lonely, "a").ready(), Speaker(lonely, "a").ready()
    other.browse()
    started = one.announce("hello")
    found = other.hear("found", name="hello")
    assert found["at"] - started < 1.0
    assert found["addresses"] == ["127.0.0.1"]
    one.tell("withdraw", name="hello")
    other.hear("lost", name="hello")


def test_two_processes_on_one_machine_of_a_network(lan: Lan) -> None:
    """They share the port with each other and a third host finds both."""
    one, other, far = (Speaker(lan, host).ready() for host in ("a", "a", "b"))
    for browsing in (one, other, far):
        browsing.browse()
    one.announce("one")
    started = other.announce("other")
    assert one.hear("found", name="other")["at"] - started < 1.0
    other.hear("found", name="one")
    for name in ("one", "other"):
        assert "127.0.0.1" not in far.hear("found", name=name)["addresses"]


def test_an_update_is_seen(lan: Lan) -> None:
    """New data and a new port of a known service are told once more."""
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    a.announce("hello", 1, key="old")
    b.hear("found", name="hello", port=1)
    a.tell("update", name="hello", port=2, txt={"key": "new"})
    b.hear("found", name="hello", port=2, txt={"key": "new"})


def test_what_says_goodbye_at_once_stays_gone(lan: Lan) -> None:
    """A goodbye right after the announcement is the last word: it is not announced again."""
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    a.announce("short")
    a.tell("withdraw", name="short")
    gone = b.hear("lost", name="short")["at"]
    with pytest.raises(AssertionError, match="no lost"):
        b.hear("lost", timeout=0.6)  # the time in which announcements are repeated
    assert all(event["at"] < gone for event in b.heard if event["name"] == "short")


def test_an_interface_that_comes_while_running_is_used(lan: Lan) -> None:
    """Found through a network adapter plugged in after both have started; and when it is
    taken out and comes back with another address, found there."""
    lan.detach("a")
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    a.announce("hello")
    lan.attach("a")
    assert b.hear("found", name="hello")["addresses"][0] == "10.77.0.1"
    lan.detach("a")
    lan.attach("a")
    lan.set_address("a", "10.77.0.77/24")
    while "10.77.0.77" not in b.hear("found", name="hello")["addresses"]:
        pass


def test_n14_a_changed_address_is_announced(lan: Lan) -> None:
    """A host that gets another address is found at it within five seconds."""
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    a.announce("hello")
    b.hear("found", name="hello")
    lan.set_address("a", "10.77.0.77/24")
    while "10.77.0.77" not in b.hear("found", timeout=5, name="hello")["addresses"]:
        pass


def test_a_lan_without_ipv4(lan: Lan) -> None:
    """Two hosts with IPv6 alone find each other, at addresses that can be dialled."""
    for host in lan.hosts:
        lan.run(host, ["ip", "-4", "addr", "flush", "dev", "eth0"])
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    started = a.announce("hello")
    found = b.hear("found", name="hello")
    assert found["at"] - started < 1.0
    assert found["addresses"] == ["fd77::1", "fe80::1%eth0"]


def test_n14_fifty_services(lan: Lan) -> None:
    """Fifty that are there already are all found by who comes last, within seconds."""
    a = Speaker(lan, "a").ready()
    for number in range(50):
        a.tell("announce", type=TYPE, name=f"n{number}", port=1, txt={})
    b = Speaker(lan, "b").ready()
    b.browse()
    for number in range(50):
        b.hear("found", timeout=5, name=f"n{number}")


def test_a_port_another_program_keeps_to_itself_is_waited_for(lonely: Lan) -> None:
    """A program that does not share port 5353 is a reason, told; when it ends, all works."""
    keep = "import socket; s = socket.socket(2, 2); s.bind(('', 5353)); print(); input()"
    keeper = lonely.popen(
        "a", [sys.executable, "-c", keep], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    keeper.stdout.readline()
    one, other = Speaker(lonely, "a"), Speaker(lonely, "a")
    for speaker in (one, other):
        assert "Address already in use" in speaker.hear("ready")["problem"]
    other.browse()
    one.announce("hello")
    keeper.communicate(b"\n")
    other.hear("found", name="hello")


def test_what_was_announced_while_the_cable_was_out_is_found_when_it_is_back(lan: Lan) -> None:
    """A carrier that returns makes both sides speak at once, whichever side had lost it."""
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    lan.link("a", up=False)
    a.announce("hello")
    lan.link("a", up=True)
    b.hear("found", timeout=5, name="hello")


def test_n14_a_goodbye_that_was_lost_does_no_harm(lan: Lan) -> None:
    """A killed process says no goodbye; its successor under a new name is found at once."""
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    a.announce("first")
    b.hear("found", name="first")
    a.process.send_signal(signal.SIGKILL)
    again = Speaker(lan, "a").ready()
    started = again.announce("second")
    assert b.hear("found", name="second")["at"] - started < 1.0


def test_n14_without_any_interface_there_is_a_reason_and_then_a_recovery(lonely: Lan) -> None:
    """Nothing raises where nothing can multicast: the reason is told; it works when it can."""
    lonely.run("a", ["ip", "link", "set", "lo", "down"])
    one, other = Speaker(lonely, "a"), Speaker(lonely, "a")
    for speaker in (one, other):
        assert speaker.hear("ready")["problem"] == "no network interface can multicast"
    other.browse()
    one.announce("hello")
    lonely.run("a", ["ip", "link", "set", "lo", "up"])
    other.hear("found", name="hello")
    other.tell("tell")
    assert other.hear("told")["problem"] is None


def test_an_interface_in_trouble_leaves_the_others_working(lan: Lan) -> None:
    """An interface without multicast and one that is down are left out, the rest works."""
    lan.run("a", ["ip", "link", "add", "odd", "type", "veth", "peer", "name", "end"])
    lan.run("a", ["ip", "link", "set", "odd", "multicast", "off", "up"])
    lan.run("a", ["ip", "addr", "add", "10.78.0.1/24", "dev", "odd"])
    lan.run("a", ["ip", "addr", "add", "10.79.0.1/24", "dev", "end"])
    a, b = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
    b.browse()
    a.announce("hello")
    assert b.hear("found", name="hello")["addresses"][0] == "10.77.0.1"
    a.tell("tell")
    assert a.hear("told")["interfaces"] == ["lo", "eth0"]
