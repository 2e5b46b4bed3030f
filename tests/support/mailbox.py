"""A mailbox in memory, as good as a real one: what one end puts, the others find."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator


class Board:
    """What all ends of a mailbox share; `end` makes one for each device."""

    def __init__(self) -> None:
        self.slots: dict[str, list[tuple[object, bytes]]] = defaultdict(list)
        self.put_now: list[tuple[str, bytes]] = []
        self.changed = asyncio.Condition()

    def end(self) -> MemoryMailbox:
        """Return the mailbox as one device has it."""
        return MemoryMailbox(self)


class Kept:
    """A message on the board."""

    def __init__(self, board: Board, slot: str, message: tuple[object, bytes]) -> None:
        self._board = board
        self._slot = slot
        self._message = message

    async def withdraw(self) -> None:
        """Take it off."""
        if self._message in self._board.slots[self._slot]:
            self._board.slots[self._slot].remove(self._message)


class MemoryMailbox:
    """One device's end."""

    def __init__(self, board: Board) -> None:
        self._board = board

    async def put(self, slot: str, data: bytes, ttl_s: float = 120) -> Kept:
        """Put a message on the board."""
        assert 0 < len(slot) <= 63
        message = (self, data)
        async with self._board.changed:
            self._board.slots[slot].append(message)
            self._board.put_now.append((slot, data))
            self._board.changed.notify_all()
        return Kept(self._board, slot, message)

    async def watch(self, slot: str) -> AsyncGenerator[bytes, None]:
        """Yield what others put there, each message once."""
        told: set[bytes] = set()
        while True:
            async with self._board.changed:
                while not (fresh := self._fresh(slot, told)):
                    await self._board.changed.wait()
            told.update(fresh)
            for data in fresh:
                yield data

    def _fresh(self, slot: str, told: set[bytes]) -> list[bytes]:
        return [
            data
            for putter, data in self._board.slots[slot]
            if putter is not self and data not in told
        ]
