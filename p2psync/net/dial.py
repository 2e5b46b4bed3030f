"""The ladder to one peer: TLS to every address it was seen at, then WebRTC; the first wins.

A channel counts only when the peer has proven who it is inside it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net import tls
from p2psync.net.addresses import printed
from p2psync.net.channel import Channel
from p2psync.net.handshake import authenticate_dialled
from p2psync.protocol.pairkey import KnownPeer
from p2psync.protocol.signing import Signer

log = logging.getLogger(__name__)

ADDRESSES: Final = 16  # tried in one go
CONNECT_S: Final = 5.0
HEAD_START_S: Final = 0.1  # of each address over the next
WEBRTC_AFTER_S: Final = 1.5

Attempt = Callable[[], Awaitable[Channel]]


class IndirectDial(Protocol):
    """A way to a peer without knowing an address of it; `signalling.Signalling` is one."""

    async def dial(self) -> Channel:
        """Return an authenticated channel, or raise what `dial_peer` may."""
        ...


async def dial_peer(
    identity: Signer,
    peer: KnownPeer,
    candidates: Sequence[tuple[str, int]],
    signalling: IndirectDial | None = None,
    *,
    webrtc_after_s: float = WEBRTC_AFTER_S,
) -> Channel:
    """Return the first authenticated channel to the peer; all other attempts are closed.

    Args:
        identity: our keys.
        peer: whom to reach.
        candidates: numeric (host, port), best first; at most 16 are tried.
        signalling: the way without an address, tried when TLS has had its time; None: TLS
            only.
        webrtc_after_s: how long TLS is tried alone.

    Raises:
        ChannelClosedError: nothing came of any attempt; the text says what, for the log.
    """

    def over_tls(host: str, port: int) -> Attempt:
        async def attempt() -> Channel:
            channel = await tls.dial(host, port, CONNECT_S)
            return await authenticate_dialled(channel, identity, peer)

        return attempt

    rungs = [
        Rung(printed(host, port), number * HEAD_START_S, over_tls(host, port))
        for number, (host, port) in enumerate(dict.fromkeys(candidates[:ADDRESSES]))
    ]
    if signalling is not None:
        alone_s = max(webrtc_after_s, len(rungs) * HEAD_START_S) if rungs else 0.0
        rungs.append(Rung("mailbox", alone_s, signalling.dial, patient=True))
    return await race(rungs)


class Rung:
    """One way to try: what it is called, when it is due, and how it is done."""

    def __init__(
        self, name: str, after_s: float, attempt: Attempt, *, patient: bool = False
    ) -> None:
        """after_s: counted from the start of the race.

        patient: not begun sooner when all before it have failed. Where one side's firewall
        refuses TCP the other side, which dials too, gets through in that time.
        """
        self.name = name
        self.after_s = after_s
        self.attempt = attempt
        self.patient = patient


async def race(rungs: Sequence[Rung]) -> Channel:
    """Try the rungs in order, each when it is due, or sooner if none before it runs any more.

    Returns the channel of the first that succeeds; the others are cancelled and, if they
    succeeded in the same moment, closed.

    Raises:
        ChannelClosedError: all failed, or there are none.
    """
    loop = asyncio.get_running_loop()
    started, waiting = loop.time(), deque(rungs)
    running: dict[asyncio.Future[Channel], Rung] = {}
    failures: list[str] = []
    try:
        while waiting or running:
            now = loop.time() - started
            while waiting and (
                waiting[0].after_s <= now or not (running or waiting[0].patient)
            ):
                rung = waiting.popleft()
                running[asyncio.ensure_future(rung.attempt())] = rung
            pause = max(0.0, waiting[0].after_s - now) if waiting else None
            if not running:
                await asyncio.sleep(pause or 0.0)
                continue
            done, _ = await asyncio.wait(
                running, timeout=pause, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                rung = running.pop(attempt)
                try:
                    return attempt.result()
                except (ChannelClosedError, RemoteProtocolError, OSError) as error:
                    log.debug("no channel by %s: %s", rung.name, error)
                    failures.append(f"{rung.name}: {error}")
    finally:
        await _drop(running)
    raise ChannelClosedError("; ".join(failures) or "no address is known")


async def _drop(
    attempts: Sequence[asyncio.Future[Channel]] | dict[asyncio.Future[Channel], Rung],
) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if not isinstance(result, BaseException):
            result.abort("another way was faster")
