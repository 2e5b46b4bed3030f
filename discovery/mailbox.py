"""Messages through mDNS records, for hosts between which no connection can be opened.

Whoever knows a slot puts a message into it, and whoever knows it too takes it out. Nothing is
encrypted or authenticated here: the caller seals what must be.

A message of up to 64 KiB is cut into parts of 1,000 bytes, each a service instance with its
bytes in the TXT record, so that a record with its name fits one packet. The slot is a DNS-SD
subtype, so that only its own watchers hear of it:

    <digest of message>-<random>-<part>-<parts>   of   _<digest of slot>._sub.<service>

mDNS repeats, answers late askers and repairs what was lost; a message is told once it is
complete and its bytes match its digest.
"""

from __future__ import annotations

import asyncio
import base64
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

_NAME = re.compile(r"([0-9a-f]{24})-[0-9a-f]{8}-(\d{1,2})-(\d{1,2})", re.ASCII)


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

    digest: str
    number: int
    parts: int

    @classmethod
    def parse(cls, name: str) -> Part | None:
        """Read an instance name; None if it is no part's."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        part = cls(match[1], int(match[2]), int(match[3]))
        return part if part.number < part.parts <= PARTS else None


class Assembly:
    """Puts the parts of one slot's messages together, in whatever order they come; pure."""

    def __init__(self) -> None:
        self._pending: OrderedDict[tuple[str, int], dict[int, bytes]] = OrderedDict()
        self._taken: OrderedDict[str, None] = OrderedDict()

    def add(self, name: str, txt: dict[bytes, bytes | None]) -> bytes | None:
        """Take in one record; return a message if this completes one not told before."""
        part = Part.parse(name)
        if part is None or part.digest in self._taken:
            return None
        content = b"".join(txt.get(str(i).encode()) or b"" for i in range(len(txt)))
        key = (part.digest, part.parts)
        parts = self._pending.setdefault(key, {})
        self._pending.move_to_end(key)
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)
        parts[part.number] = content[:PART_BYTES]
        if len(parts) < part.parts:
            return None
        data = b"".join(parts[i] for i in range(part.parts))
        if digest_of(data) != part.digest:  # some part is not its own: a better one may come
            return None
        del self._pending[key]
        self._taken[part.digest] = None
        if len(self._taken) > TAKEN:
            self._taken.popitem(last=False)
        return data


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
        handle = Handle()
        try:
            await self._put_parts(handle, self._subtype(slot), data, max(1, round(ttl_s)))
        except BaseException:
            await handle.withdraw()
            raise
        handle._expire_after(ttl_s)
        return handle

    async def _put_parts(self, handle: Handle, subtype: str, data: bytes, ttl_s: int) -> None:
        base = f"{digest_of(data)}-{secrets.token_hex(4)}"
        parts = [data[i : i + PART_BYTES] for i in range(0, len(data), PART_BYTES)]
        for number, part in enumerate(parts):
            if number:
                await asyncio.sleep(PAUSE_S)
            name = f"{base}-{number}-{len(parts)}"
            handle._add(await self._lan.announce(subtype, name, PORT, _txt(part), ttl_s=ttl_s))

    async def watch(self, slot: str) -> AsyncGenerator[bytes, None]:
        """Yield every message that others put into the slot, each distinct one once.

        What is in the slot already comes first. Messages put by this process are left out.

        Raises:
            ValueError: the slot is empty or too long.
        """
        assembly = Assembly()
        browser = self._lan.browse(self._subtype(slot), tracked=PENDING * PARTS)
        async with aclosing(browser):
            async for event in browser:
                if isinstance(event, Lost):
                    continue
                message = assembly.add(event.name, event.txt)
                if message is not None:
                    yield message

    def _subtype(self, slot: str) -> str:
        if not 0 < len(slot) <= 63:
            raise ValueError(f"a slot has 1 to 63 characters, not {len(slot)}")
        digest = hashlib.blake2b(slot.encode(), digest_size=15, person=b"mailbox slot").digest()
        return f"_{base64.b32encode(digest).decode().lower()}._sub.{self._service_type}"


def digest_of(data: bytes) -> str:
    """Return what names a message; it guards against mixed parts, not against forgers."""
    return hashlib.blake2b(data, digest_size=12, person=b"mailbox message").hexdigest()


def _txt(part: bytes) -> dict[bytes, bytes]:
    strings = [part[i : i + STRING_BYTES] for i in range(0, len(part), STRING_BYTES)]
    return {str(i).encode(): string for i, string in enumerate(strings)}
