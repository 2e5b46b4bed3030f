"""Pairing cut after any message and agents killed after any store: nothing blocks a retry."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.test_moving import edits_arrive
from tests.support.hosts import Host, Network, network, pair, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

RELAY = """
import asyncio, contextlib, socket, struct, sys

LIMIT, MARK, ORIGINAL_DST, TLS = int(sys.argv[1]), 7, 80, 0x16
LINGER = struct.pack("ii", 1, 0)

async def frames(reader, writer, count, cut, head=b""):
    while head := head or await reader.readexactly(4):
        body = await reader.readexactly(int.from_bytes(head, "big"))
        if count[0] < LIMIT:
            writer.write(head + body)
            await writer.drain()
            count[0] += 1
        if count[0] == LIMIT:
            cut.set()
        head = b""

async def bytes_through(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()

async def serve(reader, writer):
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_IP, ORIGINAL_DST, 16)
    port, host = struct.unpack("!2xH4s", raw[:8])
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (socket.inet_ntoa(host), port))
    there, to = await asyncio.open_connection(sock=sock)
    head = await reader.readexactly(4)
    if head[0] == TLS:
        to.write(head)
        await asyncio.gather(bytes_through(reader, to), bytes_through(there, writer))
        return
    count, cut = [0], asyncio.Event()
    if LIMIT == 0:
        cut.set()
    ways = [asyncio.ensure_future(frames(reader, to, count, cut, head)),
            asyncio.ensure_future(frames(there, writer, count, cut))]
    await cut.wait()
    for way in ways:
        way.cancel()
    await asyncio.sleep(0.05)  # what was written is read before the reset
    for one in (writer, to):
        one.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        one.transport.abort()
    print("cut", flush=True)

async def main():
    server = await asyncio.start_server(serve, "0.0.0.0", 7777)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
"""Forwards this many pairing messages of a connection, then resets it; TLS goes through."""

REDIRECT = """
table ip relay {
  chain out {
    type nat hook output priority -100
    oifname eth0 meta mark != 7 meta l4proto tcp redirect to :7777
  }
}
"""


def put_relay(net: Network, host: Host, messages: int) -> None:
    """Lead what the host connects to through a relay that cuts pairing."""
    relay = net.lan.popen(
        host.place,
        [sys.executable, "-c", RELAY, str(messages)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert relay.stdout.readline() == "ready\n"
    net.lan.nft(host.place, REDIRECT)


@pytest.mark.parametrize("messages", [0, 1, 2, 3, 4])
def test_cut_after_a_message(messages: int, tmp_path: Path) -> None:
    """However far it came, pairing works afterwards; before message 3 even with that code."""
    require("netns", "multicast", "nft", "root")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        (a.folder / "hello").write_text("hello")
        code, sharing = a.start_share()
        put_relay(net, b, messages)
        first = b.run("accept", code, b.folder, "--timeout", "3", exit=None)
        assert first.exit == (0 if messages == 4 else 4), first
        if messages < 4:
            net.lan.nft("b", "delete table ip relay\n")
        if messages < 3:
            b.accept(code)
        elif messages == 3:
            sharing.interrupt()
            pair(a, b)
        assert sharing.end().exit == (130 if messages == 3 else 0)
        assert [len(host.status()["peers"]) for host in net.hosts] == [1, 1]
        edits_arrive(a, b, "after")


@pytest.mark.parametrize(
    ("side", "table"),
    [
        ("a", "codes"),
        ("a", "peers"),
        ("b", "members"),
        ("b", "peers"),
        ("b", "folders"),
    ],
)
def test_killed_after_a_store(side: str, table: str, tmp_path: Path) -> None:
    """With either agent killed as soon as something is stored, pairing again works."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        (a.folder / "hello").write_text("hello")
        for host in net.hosts:
            host.start()
        victim = a if side == "a" else b
        sharing = a.start_command("share", a.folder)
        if table != "codes":
            accepting = b.start_command("accept", sharing.line("code")["code"], b.folder)
        kill_when_stored(victim, table)
        sharing.interrupt()
        assert sharing.end().exit != 0 or side == "b"
        if table != "codes":
            accepting.interrupt()
            accepting.end()
        victim.start()
        pair(a, b)
        assert (b.folder / "hello").read_text() == "hello"
        assert [len(host.status()["peers"]) for host in net.hosts] == [1, 1]
        assert [len(host.status()["folders"]) for host in net.hosts] == [1, 1]
        edits_arrive(a, b, "after")


def kill_when_stored(host: Host, table: str) -> None:
    """Kill the agent the moment a row is in this table of its own database."""
    pid = host.pid
    assert pid is not None
    database = sqlite3.connect(f"file:{host.places.database}?mode=ro", uri=True)
    with contextlib.closing(database):
        deadline = time.monotonic() + 15
        while not database.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0]:
            assert time.monotonic() < deadline, f"nothing came into {table}"
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: host.pid is None, "the agent is dead")
