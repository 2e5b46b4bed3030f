"""Meeting on the local network: the agent's record, pairing slots and mailboxes.

p2psync's one door to `discovery`. What the records say about people is nothing (design 5.6):
random names, a random nonce, tags only peers recognise, padded; a pairing record says its slot
word. Everything seen is a hint of where to dial, and proves nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Final, NamedTuple

from discovery.browser import Browser
from discovery.mailbox import MESSAGE_BYTES, Handle, MdnsMailbox
from discovery.mdns import Lan
from discovery.records import Found, Lost
from discovery.registration import Fresh, Registration
from p2psync.core.ids import DeviceId
from p2psync.protocol import limits, tags
from p2psync.protocol.pairkey import KnownPeer

__all__ = [
    "MESSAGE_BYTES",
    "Candidate",
    "Handle",
    "Lan",
    "LanPresence",
    "MdnsMailbox",
    "PairingSlots",
    "Registration",
    "Sighting",
]

PRESENCE_TYPE: Final = "_p2psync._tcp"
PAIRING_TYPE: Final = "_p2psync-pair._tcp"
MAILBOX_TYPE: Final = "_p2psync-mail._udp"

RENEW_S: Final = 6 * 3600.0
NONCE_BYTES: Final = 16
NAME_BYTES: Final = 8  # random, printed in hex
TAGS_PER_STRING: Final = 40  # a TXT string has at most 255 bytes, with its key
SLOT_LETTERS: Final = 32
CANDIDATES: Final = 64  # of one look


class Sighting(NamedTuple):
    """A peer seems to be there: worth a dial."""

    device: DeviceId
    addresses: tuple[tuple[str, int], ...]
    """(host, port), best first; a link-local IPv6 host has its interface."""


class Candidate(NamedTuple):
    """A place where a pairing slot is offered."""

    host: str
    port: int
    name: str
    """The record it came from, the same for all addresses of one device."""


class Pace:
    """Lets `rate` things a second go on, and a burst of as many: what comes too fast waits."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free_at = 0.0

    async def turn(self) -> None:
        """Wait for the next turn."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - 1.0) + 1.0 / self._rate
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class LanPresence:
    """Announces this agent to its peers, and sees theirs."""

    def __init__(self, lan: Lan, device: DeviceId) -> None:
        """Speak on the Lan for a device; nothing is sent before `announce`."""
        self._lan = lan
        self._device = device
        self._port = 0
        self._peers: tuple[KnownPeer, ...] = ()
        self._registration: Registration | None = None
        self._browsers: list[Browser] = []

    async def announce(self, port: int, peers: Mapping[DeviceId, bytes]) -> None:
        """Tell these peers where we listen, until `withdraw`.

        The record gets another name, nonce and tags on every change of network and every
        six hours.

        Args:
            port: of our TLS listener.
            peers: the pair key of each.
        """
        await self.withdraw()
        self._port = port
        self._know(peers)
        fresh = self._fresh()
        self._registration = await self._lan.announce(
            PRESENCE_TYPE, fresh.name, port, fresh.txt, renew=self._fresh, renew_s=RENEW_S
        )

    async def peers_changed(self, peers: Mapping[DeviceId, bytes]) -> None:
        """Announce to, and recognise, these peers from now on; who is there is told again."""
        self._know(peers)
        if self._registration is not None:
            await self._registration.renew()

    async def withdraw(self) -> None:
        """Say goodbye; returns when it is sent. Idempotent."""
        registration, self._registration = self._registration, None
        if registration is not None:
            await registration.withdraw()

    async def sightings(self) -> AsyncGenerator[Sighting, None]:
        """Yield peers as they appear, move or renew their records; at most 16 a second.

        Only records with a tag of a known peer. One record names at most one peer.
        """
        looks, tells = Pace(100), Pace(16)
        async with aclosing(self._lan.browse(PRESENCE_TYPE)) as browser:
            self._browsers.append(browser)
            try:
                async for event in browser:
                    await looks.turn()
                    if isinstance(event, Found) and (sighting := self._recognise(event)):
                        await tells.turn()
                        yield sighting
            finally:
                self._browsers.remove(browser)

    def ask(self) -> None:
        """Tell again who is there, and ask the network: a packet may have been lost.

        For a peer that does not answer where it was seen; costs a packet or two.
        """
        for browser in self._browsers:
            browser.repeat()
        self._lan.ask()

    def _know(self, peers: Mapping[DeviceId, bytes]) -> None:
        self._peers = tuple(KnownPeer(device, key) for device, key in peers.items())
        for browser in self._browsers:
            browser.repeat()

    def _fresh(self) -> Fresh:
        nonce = secrets.token_bytes(NONCE_BYTES)
        filler = secrets.token_bytes(tags.FILLER_BYTES)
        told = tags.make_tags(self._device, self._peers, nonce, self._port, filler)
        return Fresh(secrets.token_hex(NAME_BYTES), _packed(nonce, told))

    def _recognise(self, found: Found) -> Sighting | None:
        unpacked = _unpacked(found.txt)
        if unpacked is None:
            return None
        nonce, seen = unpacked
        index = tags.match(seen, nonce, found.port, self._device, self._peers)
        if index is None:
            return None
        addresses = tuple((host, found.port) for host in found.addresses)
        return Sighting(self._peers[index].device, addresses)


def _packed(nonce: bytes, told: list[bytes]) -> dict[bytes, bytes]:
    strings = {b"n": nonce}
    for start in range(0, len(told), TAGS_PER_STRING):
        key = b"t%d" % (start // TAGS_PER_STRING)
        strings[key] = b"".join(told[start : start + TAGS_PER_STRING])
    return strings


def _unpacked(txt: Mapping[bytes, bytes | None]) -> tuple[bytes, list[bytes]] | None:
    """Read a record of anybody's; None if it is not of our form."""
    nonce = txt.get(b"n")
    if nonce is None or len(nonce) != NONCE_BYTES:
        return None
    strings = -(-limits.TAGS // TAGS_PER_STRING)
    whole = b"".join(txt.get(b"t%d" % number) or b"" for number in range(strings))
    size = limits.TAG_BYTES
    if len(whole) % size or len(whole) > limits.TAGS * size:
        return None
    return nonce, [whole[start : start + size] for start in range(0, len(whole), size)]


class PairingSlots:
    """Offers pairing slots and looks for them; knows which are taken nearby."""

    def __init__(self, lan: Lan) -> None:
        """Use the Lan; `start` begins to see."""
        self._lan = lan
        self._seen: dict[str, str] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PairingSlots:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to see which slots are offered."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="pairing slots")

    async def stop(self) -> None:
        """Stop seeing; what is offered stays offered. Idempotent."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def offer(self, slot: str, port: int) -> Registration:
        """Announce that pairing under this slot word is answered at our port.

        The record holds the word and nothing else of us. Withdraw it when the code is used.
        """
        name = secrets.token_hex(NAME_BYTES)
        return await self._lan.announce(PAIRING_TYPE, name, port, {b"s": slot.encode()})

    def seen_slots(self) -> set[str]:
        """Return the slot words offered on the network now, ours included; at most 256."""
        return set(self._seen.values())

    async def look(self, slot: str, timeout_s: float) -> AsyncGenerator[Candidate, None]:
        """Yield the places where others offer the slot, as they appear, for so long.

        At most 64, none twice; those of one device one after the other.
        """
        told: set[Candidate] = set()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        async with aclosing(self._lan.browse(PAIRING_TYPE)) as browser:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(browser)
                except (TimeoutError, StopAsyncIteration):
                    return
                for candidate in _candidates(event, slot):
                    if candidate not in told and len(told) < CANDIDATES:
                        told.add(candidate)
                        yield candidate

    def mailbox(self) -> MdnsMailbox:
        """Return the mailbox for those between whom no connection opens."""
        return MdnsMailbox(self._lan, MAILBOX_TYPE)

    async def _watch(self) -> None:
        async with aclosing(self._lan.browse(PAIRING_TYPE, own=True)) as browser:
            async for event in browser:
                slot = _slot_of(event) if isinstance(event, Found) else None
                if slot is not None:
                    self._seen[event.name] = slot
                else:
                    self._seen.pop(event.name, None)


def _candidates(event: Found | Lost, slot: str) -> list[Candidate]:
    if not isinstance(event, Found) or _slot_of(event) != slot:
        return []
    return [Candidate(host, event.port, event.name) for host in event.addresses]


def _slot_of(found: Found) -> str | None:
    """Return the slot word of a record; None if it has none that could be one."""
    raw = found.txt.get(b"s") or b""
    if not 0 < len(raw) <= SLOT_LETTERS or not raw.isascii() or not raw.isalpha():
        return None
    return raw.decode().lower()
