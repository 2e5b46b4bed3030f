"""How this device is reached and reaches its peers: listener, announcements, dials.

Without a usable network the agent works all the same (two folders on one machine, a cable
that is plugged in later): what fails is logged and tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, TypeVar

from p2psync.core.ids import DeviceId
from p2psync.engine.membership import Membership
from p2psync.engine.peer import Peer
from p2psync.errors import P2PSyncError
from p2psync.identity.keys import Identity
from p2psync.net.certificate import process_certificate
from p2psync.net.channel import Channel
from p2psync.net.dial import dial_peer
from p2psync.net.handshake import authenticating
from p2psync.net.lan import Candidate, Lan, LanPresence, PairingSlots
from p2psync.net.pairwire import (
    PairingLink,
    PairingListener,
    dial_pairing,
    mailbox_pairing,
)
from p2psync.net.signalling import Signalling
from p2psync.net.tls import TlsListener
from p2psync.protocol.pairkey import KnownPeer

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
ASK_S = 10.0
SIGHTED_S = 300.0
GATHER_S = 0.05  # the addresses of one device are seen one after the other
PAIR_DIAL_S = 2.0

Serve = Callable[[PairingLink], Coroutine[Any, Any, None]]
T = TypeVar("T")


class Network:
    """The network side of an engine; `start` it, `close` it.

    Args:
        identity: this device.
        membership: who its peers are.
        peer_of: returns the owner of a peer; None for a device that is none any more.
        changed: called when an interface or address came or went.
    """

    def __init__(
        self,
        identity: Identity,
        membership: Membership,
        peer_of: Callable[[DeviceId], Peer | None],
        changed: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._membership = membership
        self._peer_of = peer_of
        self._network_changed = changed
        self._changed = asyncio.Event()
        self._ask_at = 0.0
        self._signalling: dict[DeviceId, Signalling] = {}
        self._answering: dict[DeviceId, asyncio.Task[None]] = {}
        self.lan: Lan
        self.slots: PairingSlots
        self._presence: LanPresence
        self._listener: TlsListener
        self._group: asyncio.TaskGroup
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Listen, announce and look around."""
        self._group = group
        on_channel = authenticating(self._identity, self._known_peers, self._accepted)
        self._listener = await TlsListener.open(process_certificate(), on_channel)
        self.lan = Lan()
        self.lan.on_change(self._network_changed)
        await self.lan.start()
        self.slots = PairingSlots(self.lan)
        await self.slots.start()
        self._presence = LanPresence(self.lan, self._identity.device)
        self._tasks = [
            group.create_task(self._look_around()),
            group.create_task(self._keep_announced()),
        ]

    async def close(self) -> None:
        """Withdraw and stop."""
        for task in [*self._tasks, *self._answering.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._answering.values(), return_exceptions=True)
        with suppress(OSError):
            await self._presence.withdraw()
        await self.slots.stop()
        await self._listener.close()
        await self.lan.stop()

    def peers_changed(self) -> None:
        """The set of peers changed: announce to them, answer their envelopes."""
        self._changed.set()

    # ------------------------------------------------------------------ being found

    def _known_peers(self) -> Sequence[KnownPeer]:
        return self._membership.known_peers()

    async def _accepted(self, device: DeviceId, channel: Channel) -> None:
        peer = self._peer_of(device)
        if peer is None:
            await channel.close()
            return
        peer.accept(channel)

    async def _keep_announced(self) -> None:
        announced = False
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                keys = {peer.device: peer.pair_key for peer in self._known_peers()}
                if announced:
                    await self._presence.peers_changed(keys)
                else:
                    await self._presence.announce(self._listener.port, keys)
                    announced = True
                self._answer_envelopes()
            except (OSError, P2PSyncError) as error:
                logger.warning("cannot announce on the network: %s", error)
                asyncio.get_running_loop().call_later(AGAIN_S, self._changed.set)
            except Exception:
                logger.exception("a bug while announcing on the network")
                asyncio.get_running_loop().call_later(AGAIN_S, self._changed.set)

    async def _look_around(self) -> None:
        while True:
            try:
                async for sighting in self._presence.sightings():
                    peer = self._peer_of(sighting.device)
                    if peer is not None:
                        peer.sighted_at = time.monotonic()
                        peer.seen(list(sighting.addresses))
            except OSError as error:
                logger.warning("cannot look around on the network: %s", error)
            except Exception:
                logger.exception("a bug while looking around on the network")
            await asyncio.sleep(AGAIN_S)

    # ------------------------------------------------------------------ pairing

    async def put_up(self, stack: AsyncExitStack, slot: str, serve: Serve) -> None:
        """Offer a slot until the stack unwinds; `serve` gets each link that is opened to it.

        Raises:
            OSError: there is no network to be reached on.
        """
        mailbox = self.slots.mailbox()
        listener = await PairingListener.open(mailbox=mailbox, word=slot)
        stack.push_async_callback(listener.close)
        serving = await stack.enter_async_context(tasks_until_exit())

        async def take_links() -> None:
            async for link in listener.links():
                serving(serve(link))

        serving(take_links())
        registration = await self.slots.offer(slot, listener.port)
        stack.push_async_callback(registration.withdraw)

    async def look(self, slot: str, timeout_s: float) -> AsyncGenerator[PairingLink, None]:
        """Yield one link to each device that offers the slot, as they are found.

        TCP to any of its addresses if one answers, else through the mailbox.
        """
        links: asyncio.Queue[PairingLink | None] = asyncio.Queue()
        places: dict[str, list[Candidate]] = {}
        async with tasks_until_exit() as start:

            async def find() -> None:
                async for candidate in self.slots.look(slot, timeout_s):
                    if candidate.name not in places:
                        places[candidate.name] = []
                        start(open_link(places[candidate.name]))
                    places[candidate.name].append(candidate)
                await links.put(None)

            async def open_link(known: list[Candidate]) -> None:
                await asyncio.sleep(GATHER_S)
                dials = [dial_pairing(c.host, c.port, PAIR_DIAL_S) for c in known]
                link = await first_of(dials)
                await links.put(link or mailbox_pairing(self.slots.mailbox(), slot))

            start(find())
            while (link := await links.get()) is not None:
                yield link

    # ------------------------------------------------------------------ dialling

    async def dial(self, peer: Peer, tls_only: bool) -> Channel | None:
        """Get an authenticated channel to a peer by the best way there is; None: none now."""
        known = {p.device: p for p in self._known_peers()}.get(peer.device)
        if known is None:
            return None
        # an offer in the mailbox is for a peer that is there and that TCP does not reach: for
        # one that is off it would only load the code of WebRTC, and say that we look for it
        there = time.monotonic() - peer.sighted_at < SIGHTED_S
        signalling = self._signalling.get(peer.device) if there and not tls_only else None
        candidates = peer.candidates()
        if not candidates and signalling is None:
            return None
        try:
            return await dial_peer(self._identity, known, candidates, signalling)
        except (OSError, P2PSyncError) as error:
            logger.debug("no channel to %s: %s", peer.device.short, error)
            self._ask_around()
            return None

    def _ask_around(self) -> None:
        """A peer does not answer: perhaps a packet was lost that told where it is now."""
        now = asyncio.get_running_loop().time()
        if now >= self._ask_at:
            self._ask_at = now + ASK_S
            self._presence.ask()

    def _answer_envelopes(self) -> None:
        """Watch the mailbox of every peer for offers; stop for those who are none any more."""
        rows = self._membership.peers()
        for device in list(self._answering):
            if device not in rows:
                self._answering.pop(device).cancel()
                self._signalling.pop(device, None)
        for known in self._known_peers():
            if known.device in self._answering:
                continue
            signalling = Signalling(
                self._identity, known, rows[known.device].key, self.slots.mailbox()
            )
            self._signalling[known.device] = signalling
            self._answering[known.device] = self._group.create_task(
                self._answer_offers(known.device, signalling)
            )

    async def _answer_offers(self, device: DeviceId, signalling: Signalling) -> None:
        while True:
            try:
                async for channel in signalling.answer_offers():
                    await self._accepted(device, channel)
            except (OSError, P2PSyncError) as error:
                logger.debug("mailbox of %s: %s", device.short, error)
            except Exception:  # of a library, about what a peer told it: nobody else's trouble
                logger.exception("a bug while answering an offer of %s", device.short)
            await asyncio.sleep(AGAIN_S)


@asynccontextmanager
async def tasks_until_exit() -> AsyncIterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Give a way to start tasks that end, cancelled if need be, with the context."""
    running: set[asyncio.Task[None]] = set()

    def start(work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        running.add(task)
        task.add_done_callback(running.discard)

    try:
        yield start
    finally:
        tasks = list(running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(attempts: Iterable[Coroutine[Any, Any, T]]) -> T | None:
    """Return what the first attempt to succeed returns; None when all fail."""
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    try:
        for finished in asyncio.as_completed(tasks):
            with suppress(P2PSyncError, OSError):
                return await finished
        return None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
