"""Messages through mDNS records, for hosts between which no connection can be opened.

Whoever knows a slot puts a message into it, and whoever knows it too takes it out. Nothing is
encrypted or authenticated here: the caller seals what must be.

A message of up to 64 KiB is cut into parts of 1,000 bytes, each a service instance with its
bytes in the TXT record, so that a record with its name fits one packet. Its name,

    <random>-<tag>-<digest>-<part>-<parts>

says nothing to strangers: tag and digest are keyed with the slot and new for every message, so
that neither a slot nor a pair of hosts can be followed from one message or network to the next.

mDNS repeats, answers late askers and repairs what was lost; a message is told once it is
complete and its bytes match its digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, NamedTuple

from discovery.mdns import Lan
from discovery.records import Lost
from discovery.registration import Registration

MESSAGE_BYTES: Final = 64 * 1024
PART_BYTES: Final = 1_000
STRING_BYTES: Final = 250  # a TXT string has at most 255 bytes, with its key
PARTS: Final = -(-MESSAGE_BYTES // PART_BYTES)
PENDING: Final = 4  # incomplete messages per watch
TAKEN: Final = 256  # complete ones remembered, not to be told again
PAUSE_S: Final = 0.002  # between parts: a receiving socket has room for some 100 packets
PORT: Final = 9  # "discard": there is nothing to connect to

_NAME = re.compile(
    r"([0-9a-f]{16})-([0-9a-f]{16})-([0-9a-f]{16})-(\d{1,2})-(\d{1,2})", re.ASCII
)


class Handle:
    """A message put into a slot."""

    def __init__(self) -> None:
        self._parts: list[Registration] = []
        self._timer: asyncio.TimerHandle | None = None
        self._expiring: asyncio.Task[None] | None = None

    def _add(self, part: Registration) -> None:
        self._parts.append(part)

    def _expire_after(self, ttl_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(ttl_s, self._expire)

    def _expire(self) -> None:
        self._expiring = asyncio.get_running_loop().create_task(self.withdraw())

    async def withdraw(self) -> None:
        """Take the message out again; who has it keeps it. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        parts, self._parts = self._parts, []
        await asyncio.gather(*(part.withdraw() for part in parts))


class Part(NamedTuple):
    """What the name of a part says."""

    message: tuple[str, str, str, int]
    """Random, tag, digest and the number of parts: the same in all parts of a message."""
    number: int

    @classmethod
    def parse(cls, name: str) -> Part | None:
        """Read an instance name; None if it is no part's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        number, parts = int(match[4]), int(match[5])
        if not number < parts <= PARTS:
            return None
        return cls((match[1], match[2], match[3], parts), number)


class Slot:
    """What two who know a slot compute alike, and nobody else can; pure."""

    def __init__(self, text: str) -> None:
        """Take the slot's text; ValueError unless it has 1 to 63 characters."""
        if not 0 < len(text) <= 63:
            raise ValueError(f"a slot has 1 to 63 characters, not {len(text)}")
        self._key = hashlib.blake2b(text.encode(), person=b"mailbox slot").digest()

    def cut(self, random: bytes, data: bytes) -> list[tuple[str, bytes]]:
        """Return the parts of a message, each with its instance name."""
        parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
        digest = self._mac(b"content", random + data)
        base = f"{random.hex()}-{self._mac(b'tag', random)}-{digest}"
        return [(f"{base}-{n}-{len(parts)}", part) for n, part in enumerate(parts)]

    def holds(self, name: str) -> bool:
        """Return whether an instance name is that of a part put into this slot."""
        part = Part.parse(name)
        if part is None:
            return False
        random, tag, _, _ = part.message
        return tag == self._mac(b"tag", bytes.fromhex(random))

    def joined(self, part: Part, data: bytes) -> bool:
        """Return whether these are the bytes of the part's message."""
        random, _, digest, _ = part.message
        return digest == self._mac(b"content", bytes.fromhex(random) + data)

    def _mac(self, use: bytes, data: bytes) -> str:
        return hashlib.blake2b(data, digest_size=8, key=self._key, person=use).hexdigest()


class Assembly:
    """Puts the parts of one slot's messages together, in whatever order they come; pure."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._pending: OrderedDict[tuple[str, str, str, int], dict[int, bytes]] = OrderedDict()
        self._taken: OrderedDict[bytes, None] = OrderedDict()

    def add(self, name: str, txt: dict[bytes, bytes | None]) -> bytes | None:
        """Take in one record; return a message if this completes one not told before."""
        part = Part.parse(name)
        if part is None or not self._slot.holds(name):
            return None
        content = b"".join(txt.get(str(i).encode()) or b"" for i in range(len(txt)))
        parts = self._pending.setdefault(part.message, {})
        self._pending.move_to_end(part.message)
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)
        parts[part.number] = content[:PART_BYTES]
        if len(parts) < part.message[3]:
            return None
        data = b"".join(parts[i] for i in range(len(parts)))
        if not self._slot.joined(part, data):  # some part is forged: a better one may come
            return None
        del self._pending[part.message]
        return data if self._first_time(data) else None

    def _first_time(self, data: bytes) -> bool:
        digest = hashlib.blake2b(data, digest_size=32).digest()
        if digest in self._taken:
            return False
        self._taken[digest] = None
        if len(self._taken) > TAKEN:
            self._taken.popitem(last=False)
        return True


class MdnsMailbox:
    """Puts messages into slots and watches slots; any number of each at once."""

    def __init__(self, lan: Lan, service_type: str = "_mailbox._udp") -> None:
        """Use the Lan, under a service type of one's own."""
        self._lan = lan
        self._service_type = service_type

    async def put(self, slot: str, data: bytes, ttl_s: float = 120) -> Handle:
        """Put a message into a slot, for `ttl_s` seconds; the first packets are sent on return.

        Args:
            slot: any text both sides know; at most 63 characters.
            data: 1 byte to `MESSAGE_BYTES`.
            ttl_s: after this it is withdrawn.

        Raises:
            ValueError: the slot or the data are too long, or empty.
        """
        if not 0 < len(data) <= MESSAGE_BYTES:
            raise ValueError(f"a message has 1 to {MESSAGE_BYTES} bytes, not {len(data)}")
        parts = Slot(slot).cut(secrets.token_bytes(8), data)
        handle = Handle()
        try:
            await self._put_parts(handle, parts, max(1, round(ttl_s)))
        except BaseException:
            await handle.withdraw()
            raise
        handle._expire_after(ttl_s)
        return handle

    async def _put_parts(
        self, handle: Handle, parts: list[tuple[str, bytes]], ttl_s: int
    ) -> None:
        for number, (name, part) in enumerate(parts):
            if number:
                await asyncio.sleep(PAUSE_S)
            handle._add(
                await self._lan.announce(
                    self._service_type, name, PORT, _txt(part), ttl_s=ttl_s
                )
            )

    async def watch(self, slot: str) -> AsyncGenerator[bytes, None]:
        """Yield every message that others put into the slot, each distinct one once.

        What is in the slot already comes first. Messages put by this process are left out.

        Raises:
            ValueError: the slot is empty or too long.
        """
        known = Slot(slot)
        assembly = Assembly(known)
        browser = self._lan.browse(
            self._service_type, tracked=PENDING * PARTS, accepts=known.holds
        )
        async with aclosing(browser):
            async for event in browser:
                if isinstance(event, Lost):
                    continue
                message = assembly.add(event.name, event.txt)
                if message is not None:
                    yield message


def _txt(part: bytes) -> dict[bytes, bytes]:
    strings = [part[i : i + STRING_BYTES] for i in range(0, len(part), STRING_BYTES)]
    return {str(i).encode(): string for i, string in enumerate(strings)}
