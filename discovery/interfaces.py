"""Which network interfaces can carry multicast now, and word when that changes.

An interface counts when it is up, has an address, multicasts (or is the loopback) and really
lets us join the mDNS group: each is tried on its own, so one that cannot (a VPN, an address
still being checked for duplicates) never takes the others down.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import ipaddress
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Final, NamedTuple

import ifaddr

GROUP4: Final = "224.0.0.251"
GROUP6: Final = "ff02::fb"
POLL_S: Final = 5.0  # where the system tells us of changes, too: it may have forgotten one
SETTLE_S: Final = 0.02  # one change of an interface comes as a burst of messages

# net/if.h
_UP, _LOOPBACK, _RUNNING = 0x1, 0x8, 0x40
_MULTICAST = 0x1000 if sys.platform == "linux" else 0x8000
_GET_FLAGS: Final = {"linux": 0x8913, "darwin": 0xC0206911}
_REQUEST_BYTES: Final = 40

# linux/rtnetlink.h: RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
_CHANGES: Final = 0x1 | 0x10 | 0x100


class Interface(NamedTuple):
    """One usable interface."""

    name: str
    number: int
    """The kernel's index, the scope of link-local addresses."""
    loopback: bool
    running: bool
    """There is a carrier: the cable is plugged in."""
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    """Without scope; the link-local one first, which mDNS speaks from."""


def usable() -> tuple[Interface, ...]:
    """Return the interfaces that multicast now, by index; none is a valid answer."""
    found = []
    for adapter in ifaddr.get_adapters():
        interface = _interface(adapter)
        if interface is not None and (interface.ipv4 or interface.ipv6):
            found.append(interface)
    return tuple(sorted(found, key=lambda interface: interface.number))


def _interface(adapter: ifaddr.Adapter) -> Interface | None:
    flags = _flags(adapter.nice_name)
    if adapter.index is None or not flags & _UP or not flags & (_MULTICAST | _LOOPBACK):
        return None
    index, loopback = adapter.index, bool(flags & _LOOPBACK)
    ipv4 = [str(ip.ip) for ip in adapter.ips if ip.is_IPv4]
    # on the loopback IPv4 is enough, and multicast to ::1 goes nowhere
    ipv6 = [ip.ip[0].split("%")[0] for ip in adapter.ips if ip.is_IPv6 and not loopback]
    return Interface(
        adapter.nice_name,
        index,
        loopback,
        bool(flags & _RUNNING),
        tuple(ip for ip in sorted(ipv4) if _joins4(ip)),
        tuple(ip for ip in sorted(ipv6, key=_link_local_first) if _joins6(ip, index)),
    )


def _link_local_first(ip: str) -> tuple[bool, str]:
    return not ipaddress.ip_address(ip).is_link_local, ip


def _flags(name: str) -> int:
    """Return the interface's flags; 0 if it is gone, all where they cannot be asked for."""
    if sys.platform not in _GET_FLAGS:
        return _UP | _MULTICAST | _RUNNING
    request = array.array("B", name.encode()[:15].ljust(_REQUEST_BYTES, b"\0"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            fcntl.ioctl(asker, _GET_FLAGS[sys.platform], request)
        except OSError:
            return 0
    return int(struct.unpack_from("=H", request, 16)[0])


def _joins4(ip: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        try:
            member.bind((ip, 0))
            one = socket.inet_aton(ip)
            group = socket.inet_aton(GROUP4) + one
            member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            member.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, one)
        except OSError:
            return False
    return True


def _joins6(ip: str, index: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as member:
            member.bind((ip, 0, 0, index))
            group = socket.inet_pton(socket.AF_INET6, GROUP6) + struct.pack("@I", index)
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    except OSError:
        return False
    return True


def sockets_for(interfaces: Iterable[Interface]) -> list[str | int]:
    """Return one IPv4 and one IPv6 place to speak from for each interface.

    In zeroconf's terms: an address, or for IPv6 an interface index where two interfaces
    share their link-local address (as bridges and VLANs do).
    """
    speakers: list[str | int] = [one.ipv4[0] for one in interfaces if one.ipv4]
    firsts = [one.ipv6[0] for one in interfaces if one.ipv6]
    for one in interfaces:
        if one.ipv6:
            speakers.append(one.ipv6[0] if firsts.count(one.ipv6[0]) == 1 else one.number)
    return speakers


def addresses_of(interfaces: Iterable[Interface], limit: int) -> list[str]:
    """Return where this machine can be reached: the loopback's only if it is all there is."""
    real = [one for one in interfaces if not one.loopback] or list(interfaces)
    ipv4 = [ip for one in real for ip in one.ipv4]
    ipv6 = [ip for one in real for ip in one.ipv6]
    return [*ipv4[: limit // 2], *ipv6[: limit // 2]]


async def changes() -> AsyncIterator[tuple[Interface, ...]]:
    """Yield the usable interfaces now, and again whenever they have become others.

    At once where the system tells (Linux: rtnetlink), else within `POLL_S`.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    with _netlink() as listener:
        if listener is not None:
            loop.add_reader(listener, _drain, listener, told)
        try:
            known = usable()
            yield known
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(told.wait(), POLL_S)
                    await asyncio.sleep(SETTLE_S)
                told.clear()
                now = usable()
                if now != known:
                    known = now
                    yield known
        finally:
            if listener is not None:
                loop.remove_reader(listener)


@contextlib.contextmanager
def _netlink() -> Iterator[socket.socket | None]:
    if sys.platform != "linux":
        yield None
        return
    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    except OSError:  # a sandbox without this family: polling is enough
        yield None
        return
    with listener:
        try:
            listener.setblocking(False)
            listener.bind((0, _CHANGES))
        except OSError:
            yield None
            return
        yield listener


def _drain(listener: socket.socket, told: asyncio.Event) -> None:
    """Take what the kernel said; that it spoke is all we want to know."""
    told.set()
    for _ in range(64):  # more wakes us again
        try:
            listener.recv(65536)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: it said more than there was room for
            continue
