"""Addresses as sockets give them, as people read them, and as a peer may send them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

SocketAddress = tuple[str, int] | tuple[str, int, int, int]
"""What a socket calls an address: (host, port), for IPv6 with flow and scope."""

_V4_MAPPED: Final = "::ffff:"


def host_of(address: SocketAddress) -> str:
    """Return the host alone: IPv4 also where a dual-stack socket disguises it, IPv6 scoped."""
    host = address[0]
    if host.startswith(_V4_MAPPED) and "." in host:
        return host.removeprefix(_V4_MAPPED)
    if len(address) == 4 and address[3] and "%" not in host:
        try:
            return f"{host}%{socket.if_indextoname(address[3])}"
        except OSError:  # the interface is gone
            return f"{host}%{address[3]}"
    return host


def printed(host: str, port: int) -> str:
    """Return "192.168.1.20:40123" or "[fe80::1%eth0]:40123"."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, SocketAddress]:
    """Turn a numeric host, scoped or not, into what a socket takes; never asks a resolver.

    Raises:
        OSError: host is no numeric address, or its interface is gone.
    """
    found = socket.getaddrinfo(
        host,
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
    family, _, _, _, address = found[0]
    if len(address) == 4:
        return family, (str(address[0]), int(address[1]), int(address[2]), int(address[3]))
    return family, (str(address[0]), int(address[1]))


def share_of(host: str) -> str:
    """Return whose share of the unauthenticated places a host uses: IPv4, or IPv6 /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return host
