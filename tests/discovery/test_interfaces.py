"""Which interfaces are usable, and that every change of them is told."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from discovery import interfaces
from discovery.interfaces import Interface, addresses_of, sockets_for, usable
from tests.support.inside import on_loopback


def interface(number: int, ipv4: tuple[str, ...], ipv6: tuple[str, ...]) -> Interface:
    return Interface(f"eth{number}", number, number == 1, True, ipv4, ipv6)


def test_one_place_to_speak_from_for_each_interface_and_family() -> None:
    """One address each, and the interface's number where two share a link-local address."""
    both = [
        interface(2, ("10.0.0.1", "10.0.0.2"), ("fe80::1", "fd00::1")),
        interface(3, (), ("fe80::1",)),
        interface(4, ("10.1.0.1",), ("fe80::4",)),
    ]
    assert sockets_for(both) == ["10.0.0.1", "10.1.0.1", 2, 3, "fe80::4"]


def test_the_loopback_is_announced_only_alone() -> None:
    """Others are told our real addresses, at most so many; the loopback's if there are none."""
    lo = interface(1, ("127.0.0.1",), ())
    many = interface(2, tuple(f"10.0.0.{n}" for n in range(50)), ("fe80::1",))
    assert addresses_of([lo], 16) == ["127.0.0.1"]
    assert addresses_of([lo, many], 16) == [*many.ipv4[:8], "fe80::1"]
    assert addresses_of([], 16) == []


async def ip(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec("ip", *argv, stdout=subprocess.DEVNULL)
    assert await process.wait() == 0


@on_loopback
async def test_every_change_of_the_interfaces_is_told_at_once() -> None:
    """Adding, addressing, stopping and removing an interface are each told in a moment."""
    steps: list[tuple[Callable[[], Awaitable[None]], list[str]]] = [
        (lambda: ip("addr", "add", "10.5.0.1/24", "dev", "one"), ["lo", "one"]),
        (lambda: ip("link", "set", "one", "multicast", "off"), ["lo"]),
        (lambda: ip("link", "set", "one", "multicast", "on"), ["lo", "one"]),
        (lambda: ip("link", "set", "one", "down"), ["lo"]),
        (lambda: ip("link", "set", "one", "up"), ["lo", "one"]),
        (lambda: ip("link", "del", "one"), ["lo"]),
    ]
    async with aclosing(interfaces.changes()) as changes:
        assert [one.name for one in await anext(changes)] == ["lo"]
        await ip("link", "add", "one", "type", "veth", "peer", "name", "two")
        for end in ("one", "two"):
            await ip("link", "set", end, "addrgenmode", "none")
            await ip("link", "set", end, "up")
        for step, names in steps:
            await step()
            async with asyncio.timeout(interfaces.POLL_S / 2):  # told, not polled
                while [one.name for one in await anext(changes)] != names:
                    pass


@on_loopback
async def test_a_carrier_that_comes_back_is_a_change() -> None:
    """Pulling a cable changes no address, but is seen, and so is plugging it in."""
    await ip("link", "add", "one", "type", "veth", "peer", "name", "two")
    await ip("addr", "add", "10.5.0.1/24", "dev", "one")
    for end in ("one", "two"):
        await ip("link", "set", end, "addrgenmode", "none")
        await ip("link", "set", end, "up")
    assert [one.running for one in usable()] == [True, True]
    await ip("link", "set", "two", "down")
    assert [one.running for one in usable()] == [True, False]
