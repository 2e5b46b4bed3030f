"""Sends bogus announcements as fast as it is told, as a hostile host on the network would."""

from __future__ import annotations

import secrets
import socket
import struct
import sys
import time
from typing import Final

GROUP: Final = ("224.0.0.251", 5353)
PTR, TXT, SRV, A = 12, 16, 33, 1


def name(*labels: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def record(owner: bytes, kind: int, data: bytes, ttl_s: int = 4500) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1, ttl_s, len(data)) + data


def announcement(instance: str, service: str, text_bytes: int) -> bytes:
    """Return a packet that announces an instance as a real responder would."""
    labels = (*service.split("."), "local")
    full, host = name(instance, *labels), name(instance, "local")
    text = (b"\xff" + secrets.token_bytes(255)) * (text_bytes // 256)
    records = [
        record(name(*labels), PTR, full),
        record(full, SRV, struct.pack("!HHH", 0, 0, 4000) + host),
        record(full, TXT, text or b"\0"),
        record(host, A, secrets.token_bytes(4)),
    ]
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def malformed() -> list[bytes]:
    """Return packets as a broken or hostile responder sends them."""
    good = announcement("x", "_test._tcp", 256)
    head = struct.pack("!6H", 0, 0x8400, 0, 3, 0, 0)
    packets = [
        head,
        b"",
        good[:40],
        head + b"\xc0\x0c" * 200,  # a pointer to itself
        head + b"\x3f" * 300,
        good[:2] + b"\x84\x00" + b"\xff" * 8 + good[12:],  # counts beyond the end
        head + name("a") + struct.pack("!HHIH", 47, 1, 9, 60_000) + b"\0" * 99,
    ]
    packets += [good[:n] + secrets.token_bytes(40) for n in range(12, len(good), 3)]
    packets += [secrets.token_bytes(n) for n in range(0, 9_000, 90)]
    return packets


def opened(address: str) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    sender.bind((address, 0))
    return sender


def announce(
    sender: socket.socket, service: str, count: int, text_bytes: int, rate: int
) -> None:
    started = time.monotonic()
    for number in range(count):
        sender.sendto(announcement(secrets.token_hex(12), service, text_bytes), GROUP)
        ahead = number / rate - (time.monotonic() - started)
        if ahead > 0.001:
            time.sleep(ahead)


def main(what: str, address: str, *rest: str) -> None:
    with opened(address) as sender:
        if what == "announce":
            announce(sender, rest[0], *map(int, rest[1:]))
        for packet in malformed() if what == "malformed" else ():
            sender.sendto(packet, GROUP)


if __name__ == "__main__":
    main(*sys.argv[1:])
