"""What browsing tells, and how a record's addresses are put in order; pure.

Everything here comes from the network and is a claim of whoever sent it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

ADDRESSES: Final = 16  # of one record

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Found(NamedTuple):
    """A service instance, when it appears and whenever anything of it changes."""

    name: str
    addresses: tuple[str, ...]
    """IPv4 first, link-local IPv6 last and with its interface ("fe80::1%eth0"); at most 16."""
    port: int
    txt: dict[bytes, bytes | None]


class Lost(NamedTuple):
    """An instance said goodbye, ran out, or was displaced by newer ones.

    May name one that was never told as `Found`.
    """

    name: str


def ordered(claimed: Iterable[str], scope_name: Callable[[int], str]) -> tuple[str, ...]:
    """Return the addresses worth dialling, best first, without doubles.

    Left out: what no host can have, link-local IPv6 without an interface, and loopback
    addresses beside others (only a record of this machine, with no network, has them alone).

    Args:
        claimed: addresses, a scope as "%<number>".
        scope_name: the name of the interface with that number; its OSError drops the address.
    """
    usable: dict[str, tuple[int, str]] = {}
    for text in claimed:
        address = _parsed(text)
        if address is None:
            continue
        try:
            printed = _printed(address, scope_name)
        except (OSError, ValueError):
            continue
        usable.setdefault(printed, (_rank(address), printed))
    loopback = _rank(ipaddress.IPv4Address("127.0.0.1"))
    some_are_real = any(rank < loopback for rank, _ in usable.values())
    best = sorted(
        printed for printed in usable.values() if not (some_are_real and printed[0] == loopback)
    )
    return tuple(text for _, text in best[:ADDRESSES])


def _parsed(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return None
    return address


def _rank(address: Address) -> int:
    if address.is_loopback:
        return 3
    if address.version == 4:
        return 0
    return 2 if address.is_link_local else 1


def _printed(address: Address, scope_name: Callable[[int], str]) -> str:
    if isinstance(address, ipaddress.IPv4Address) or not address.is_link_local:
        return str(address).split("%")[0]
    if address.scope_id is None:
        raise ValueError("link-local without an interface")
    bare = str(address).split("%")[0]
    return f"{bare}%{scope_name(int(address.scope_id))}"
