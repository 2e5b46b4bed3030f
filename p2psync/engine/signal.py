"""A bell that wakes everyone who waits for it to ring the next time."""

from __future__ import annotations

import asyncio


class Bell:
    """Rings for all who are waiting; who comes later waits for the next ring.

    Waiters check their condition first and wait then, in one go without an await between,
    so that no ring is missed.
    """

    def __init__(self) -> None:
        self._ringing: asyncio.Event = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        self._ringing.set()
        self._ringing = asyncio.Event()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the next ring; False when the time ran out first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ringing.wait()
        except TimeoutError:
            return False
        return True
