"""One end of a WebRTC data channel, to see how fast it carries 64 KiB messages.

    python -m benchmarks.channel_end stock|ours asyncio|uvloop send|receive ADDRESS SECONDS

Two of them, in two namespaces: each prints what the other must know as one line and reads the
other's as one line. The receiver prints the rate in MB/s when the seconds are over.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription

from p2psync.net.certificate import Certificate
from p2psync.net.webrtc import Signal, WebRtcChannel, WebRtcEnd
from p2psync.protocol.envelope import Candidate, CandidateType

MESSAGE: Final = bytes(65_536)
OUR_MESSAGE: Final = MESSAGE[:-16]  # with its header still one piece of 64 KiB
QUEUED_BYTES: Final = 1_000_000
CONNECT_TIMEOUT_S: Final = 20.0


class Meter:
    """Counts what arrives, from the first message until the time is over."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bytes = 0
        self._began = 0.0
        self.done = asyncio.Event()

    def take(self, message: bytes | str) -> None:
        """Count a message."""
        now = time.perf_counter()
        self._began = self._began or now
        self._bytes += len(message)
        if now - self._began >= self._seconds and not self.done.is_set():
            print(self._bytes / (now - self._began) / 1e6, flush=True)
            self.done.set()


async def exchange(mine: object) -> list[str]:
    """Tell the other end a value; return its one."""
    print(json.dumps(mine), flush=True)
    line = await asyncio.to_thread(sys.stdin.readline)
    found: list[str] = json.loads(line)
    return found


async def stock(role: str, address: str, seconds: float) -> None:
    """Be an end made of aiortc as it is."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("bench", negotiated=True, id=0)
    opened, meter = asyncio.Event(), Meter(seconds)
    channel.on("open", opened.set)
    channel.on("message", meter.take)
    if role == "send":
        await connection.setLocalDescription(await connection.createOffer())
        theirs = await exchange([connection.localDescription.sdp])
        await connection.setRemoteDescription(RTCSessionDescription(theirs[0], "answer"))
    else:
        line = await asyncio.to_thread(sys.stdin.readline)
        offer = RTCSessionDescription(json.loads(line)[0], "offer")
        await connection.setRemoteDescription(offer)
        await connection.setLocalDescription(await connection.createAnswer())
        print(json.dumps([connection.localDescription.sdp]), flush=True)
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        await opened.wait()
    if role == "receive":
        await meter.done.wait()
    else:
        await _send_for_ever(channel)


async def _send_for_ever(channel: RTCDataChannel) -> None:
    low = asyncio.Event()
    channel.bufferedAmountLowThreshold = QUEUED_BYTES // 4
    channel.on("bufferedamountlow", low.set)
    while True:
        if channel.bufferedAmount > QUEUED_BYTES:
            low.clear()
            await low.wait()
        channel.send(MESSAGE)


async def ours(role: str, address: str, seconds: float) -> None:
    """Be an end as the agent makes it."""
    end = WebRtcEnd(Certificate(), offering=role == "send", addresses=[address])
    mine = await end.gather()
    ports = [str(candidate.port) for candidate in mine.candidates]
    hosts = [str(candidate.address) for candidate in mine.candidates]
    told = await exchange([mine.seed.hex(), mine.fingerprint.hex(), hosts[0], ports[0]])
    seed, fingerprint, host, port = told
    where = Candidate(CandidateType.HOST, ipaddress.ip_address(host), int(port))
    theirs = Signal(bytes.fromhex(seed), bytes.fromhex(fingerprint), (where,))
    channel: WebRtcChannel = await end.connect(theirs, CONNECT_TIMEOUT_S)
    channel.admit()
    meter = Meter(seconds)
    while role == "send":
        await channel.send(OUR_MESSAGE)
    while not meter.done.is_set():
        meter.take(await channel.receive())


ENDS: Final[dict[str, Callable[[str, str, float], Awaitable[None]]]] = {
    "stock": stock,
    "ours": ours,
}


def main() -> None:
    """Be the end that the command line says."""
    kind, loop, role, address, seconds = sys.argv[1:]
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_end(ENDS[kind], role, address, float(seconds)))


async def _end(
    end: Callable[[str, str, float], Awaitable[None]], role: str, address: str, seconds: float
) -> None:
    await end(role, address, seconds)


if __name__ == "__main__":
    main()
