"""Measures what a channel carries: tls, webrtc, and aiortc as it comes, between two processes.

    scripts/with-python scripts/measure_channel.py [--mib 256] [tls webrtc stock stock-uvloop]

One process sends messages of --message bytes, the other takes them; frames, room messages and
encryption included, hashing and disks not. Printed per transport and round: MB/s at the
receiver from the first message to the last, CPU seconds and the most memory at both ends.
`stock` is aiortc's own data channel on asyncio's own loop; the others run on uvloop, as the
agent does. --in-sender and --in-receiver put a command before each process, to run it in a
namespace; --under puts one before both, as a profiler.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from p2psync.net.certificate import Certificate
from p2psync.net.channel import Channel
from p2psync.net.tls import TlsListener, dial

KINDS = ("tls", "webrtc", "stock", "stock-uvloop")
CONNECT_S = 20.0
QUEUED = 1024 * 1024
SAMPLES = 16  # different messages


def tell(**what: object) -> None:
    """Say one thing to the process that started us."""
    print(json.dumps(what), flush=True)


async def told() -> Any:
    """Hear one thing from it."""
    return json.loads(await asyncio.to_thread(sys.stdin.readline))


class StockChannel:
    """aiortc's own data channel, with the back pressure its documentation shows."""

    def __init__(self, wire: Any) -> None:
        self._wire = wire
        self._messages: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = asyncio.Event()
        wire.bufferedAmountLowThreshold = QUEUED // 4
        wire.on("bufferedamountlow", self._room.set)
        wire.on("message", self._messages.put_nowait)

    async def send(self, message: bytes) -> None:
        """Queue one message."""
        while self._wire.bufferedAmount > QUEUED:
            self._room.clear()
            await self._room.wait()
        self._wire.send(message)

    async def receive(self) -> bytes:
        """Return the next message."""
        return await self._messages.get()


@contextlib.asynccontextmanager
async def stock(role: str, address: str) -> AsyncIterator[StockChannel]:
    """Connect as aiortc's documentation says, by offer and answer."""
    import aioice.ice
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [address]  # it skips loopback
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))  # its default is a server
    wire = connection.createDataChannel("measured", negotiated=True, id=0)
    opened = asyncio.Event()
    wire.on("open", opened.set)
    offering = role == "send"
    theirs: Any = None
    if not offering:
        theirs = await told()
        await connection.setRemoteDescription(RTCSessionDescription(**theirs))
    description = await (connection.createOffer() if offering else connection.createAnswer())
    await connection.setLocalDescription(description)
    tell(sdp=connection.localDescription.sdp, type=connection.localDescription.type)
    if offering:
        theirs = await told()
        await connection.setRemoteDescription(RTCSessionDescription(**theirs))
    await opened.wait()
    closed = asyncio.Event()
    wire.on("close", closed.set)
    yield StockChannel(wire)
    if not offering:  # its close aborts, and with that its last message may be lost
        await closed.wait()
    await connection.close()


@contextlib.asynccontextmanager
async def webrtc(role: str, address: str) -> AsyncIterator[Channel]:
    """Connect our WebRTC transport."""
    import ipaddress

    from p2psync.net.webrtc import Signal, WebRtcEnd
    from p2psync.protocol.envelope import Candidate, CandidateType

    end = WebRtcEnd(Certificate(), offering=role == "send", addresses=[address])
    ours = await end.gather()
    ports = [candidate.port for candidate in ours.candidates]
    theirs: Any = None
    if role == "receive":
        theirs = await told()
    tell(seed=ours.seed.hex(), print=ours.fingerprint.hex(), address=address, ports=ports)
    if role == "send":
        theirs = await told()
    host = ipaddress.ip_address(theirs["address"])
    candidates = [Candidate(CandidateType.HOST, host, port) for port in theirs["ports"]]
    signal = Signal(
        bytes.fromhex(theirs["seed"]), bytes.fromhex(theirs["print"]), tuple(candidates)
    )
    channel = await end.connect(signal, CONNECT_S)
    channel.admit()
    yield channel
    await channel.close()


@contextlib.asynccontextmanager
async def tls(role: str, address: str) -> AsyncIterator[Channel]:
    """Connect our TLS transport."""
    if role == "send":
        tell(nothing="needed")
        theirs = await told()
        channel: Channel = await dial(theirs["address"], theirs["port"], CONNECT_S)
        channel.admit()
        yield channel
        await channel.close()
        return
    await told()
    arrived: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

    async def take(channel: Channel) -> None:
        arrived.set_result(channel)

    listener = await TlsListener.open(Certificate(), take, hosts=[address])
    tell(address=address, port=listener.port)
    channel = await arrived
    channel.admit()
    yield channel
    await channel.close()
    await listener.close()


CONNECT: dict[str, Callable[[str, str], Any]] = {
    "tls": tls,
    "webrtc": webrtc,
    "stock": stock,
    "stock-uvloop": stock,
}


def samples(size: int) -> list[bytes]:
    """Return some different messages, the same in every process."""
    rng = random.Random(1)  # noqa: S311 - nobody is to be surprised
    return [rng.randbytes(size) for _ in range(SAMPLES)]


async def send(channel: Any, size: int, count: int, verify: bool) -> None:
    """Send all messages, and wait until the other side has them."""
    messages = samples(size)
    for number in range(count):
        await channel.send(messages[number % SAMPLES])
    await channel.receive()


async def receive(channel: Any, size: int, count: int, verify: bool) -> None:
    """Take all messages and say how fast they came."""
    first = await channel.receive()
    started = time.monotonic()
    hashed = hashlib.sha256(first if verify else b"")
    for _ in range(count - 1):
        message = await channel.receive()
        if verify:
            hashed.update(message)
    took = time.monotonic() - started
    if verify:
        sent, right = samples(size), hashlib.sha256()
        for number in range(count):
            right.update(sent[number % SAMPLES])
        assert hashed.digest() == right.digest(), "what arrived is not what was sent"
    await channel.send(b"taken")
    tell(mb_s=(count - 1) * size / took / 1e6)


async def play(kind: str, role: str, address: str, size: int, count: int, verify: bool) -> None:
    """Be one of the two processes."""
    work: Callable[..., Awaitable[None]] = send if role == "send" else receive
    async with CONNECT[kind](role, address) as channel:
        before = resource.getrusage(resource.RUSAGE_SELF)
        await work(channel, size, count, verify)
        after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tell(cpu_s=cpu, rss_mib=after.ru_maxrss / 1024)


def run(kind: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one transfer between two new processes; return what they said."""
    count = max(2, options.mib * 1024 * 1024 // options.message)
    processes = {}
    for role in ("send", "receive"):
        where = options.in_sender if role == "send" else options.in_receiver
        address = options.sender_address if role == "send" else options.receiver_address
        tail = [kind, role, address, str(options.message), str(count), str(int(options.verify))]
        command = [*shlex.split(where), *shlex.split(options.under), sys.executable, __file__]
        processes[role] = subprocess.Popen(
            [*command, *tail], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    sender, receiver = processes["send"], processes["receive"]
    assert sender.stdin
    assert sender.stdout
    assert receiver.stdin
    assert receiver.stdout
    try:
        receiver.stdin.write(sender.stdout.readline())
        receiver.stdin.flush()
        sender.stdin.write(receiver.stdout.readline())
        sender.stdin.flush()
        said = json.loads(receiver.stdout.readline())
        at_sender = json.loads(sender.stdout.readline())
        at_receiver = json.loads(receiver.stdout.readline())
        for process in processes.values():
            process.wait(CONNECT_S)
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()
    return {
        "mb_s": said["mb_s"],
        "sender_cpu_s": at_sender["cpu_s"],
        "receiver_cpu_s": at_receiver["cpu_s"],
        "sender_mib": at_sender["rss_mib"],
        "receiver_mib": at_receiver["rss_mib"],
    }


def main() -> None:
    """Measure what was asked for, alternating, and print every round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="TRANSPORT", help=", ".join(KINDS))
    parser.add_argument("--mib", type=int, default=128, help="to carry in each run")
    parser.add_argument("--message", type=int, default=64 * 1024, help="bytes of one message")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--verify", action="store_true", help="compare what arrived, slower")
    parser.add_argument("--in-sender", default="")
    parser.add_argument("--in-receiver", default="")
    parser.add_argument("--sender-address", default="127.0.0.1")
    parser.add_argument("--receiver-address", default="127.0.0.1")
    parser.add_argument("--under", default="", help="a command before both")
    options = parser.parse_args()
    kinds = options.kinds or ["tls", "webrtc", "stock"]
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind in kinds:
            found = run(kind, options)
            rates[kind].append(found["mb_s"])
            print(kind.ljust(14), *(f"{name} {value:.1f}" for name, value in found.items()))
    for kind, found_rates in rates.items():
        print(f"{kind:14} median {statistics.median(found_rates):.1f} MB/s")


if __name__ == "__main__":
    if len(sys.argv) == 7 and sys.argv[2] in ("send", "receive"):
        kind_, role_, address_, *numbers = sys.argv[1:]
        if kind_ == "stock":
            new_loop: Any = None
        else:
            import uvloop

            new_loop = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=new_loop) as runner:
            size_, count_, verify_ = map(int, numbers)
            runner.run(play(kind_, role_, address_, size_, count_, bool(verify_)))
    else:
        main()
