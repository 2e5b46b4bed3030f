"""Following a replica until it and a peer are equal, and how a command then ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from p2psync.engine.events import (
    Event,
    Finished,
    FolderStatus,
    Progress,
    State,
    StateChanged,
)
from p2psync.engine.replica import Replica
from p2psync.errors import ExitCode

SETTLED_S: Final = 1.0  # this long blocked without progress counts as finished with problems
PROGRESS_S: Final = 0.5

BLOCKED_THERE: Final = (
    "Everything is here, but another device cannot take all of it. "
    "`p2psync status` there shows what is blocked."
)


class Rest:
    """Notices when nothing has been going on for a second, with something still missing."""

    def __init__(self) -> None:
        self._since: float | None = None

    def lasts(self, resting: bool) -> bool:
        """Say whether it rests, and did at every question of the last second."""
        if not resting:
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > SETTLED_S


async def follow(replica: Replica, peer: bytes) -> AsyncGenerator[Event, None]:
    """Tell how a replica and one peer become equal; ends with `Finished`."""
    last: Event | None = None
    rest = Rest()
    there = False
    while True:
        waiting = asyncio.ensure_future(replica.changed.wait(PROGRESS_S))
        try:
            status = await replica.status()
            progress = _progress(replica, peer, status)
            if progress != last and (last or isinstance(progress, Progress)):
                last = progress
                yield progress
            if await replica.equal_with(peer):
                there = False
                break
            there = replica.blocked_there(peer)
            if rest.lasts(status.state is State.HELD or await replica.rests(peer)):
                break
            await waiting
        finally:
            waiting.cancel()
    status = await replica.status()
    yield StateChanged(status.state, status.path)
    yield finished(status, there=there)


def _progress(replica: Replica, peer: bytes, status: FolderStatus) -> Progress | StateChanged:
    """How far this device and the peer are, together: what both have of what there is.

    Of a peer that is gone nothing can be said but that it is waited for.
    """
    told = [link.exchange.told for link in replica.links if link.conversation.key == peer]
    if not told:
        return StateChanged(State.WAITING, status.path)
    files = status.need_files + told[0].need_files
    size = status.need_bytes + told[0].need_bytes
    total_files = status.files + status.need_files
    total_bytes = status.size_bytes + status.need_bytes
    if status.need_files:  # what has come of a large file is neither there nor to come
        total_bytes += sum(list(replica.stock.received.values()))
    return Progress(
        max(0, total_files - files), total_files, max(0, total_bytes - size), total_bytes
    )


def finished(status: FolderStatus, *, there: bool = False) -> Finished:
    """Return how a command ends whose folder came to rest like this.

    there: it is another device that lacks something and gets no further.
    """
    if status.state is State.HELD:
        return Finished(ExitCode.HELD, f"Held: {status.detail}")
    needed = status.need_files > 0
    blocked = sum(1 for problem in status.problems if needed or problem.blocks)
    conflicts = len(status.conflicts)
    if blocked or conflicts:
        counts = [
            f"{count} {word}"
            for count, word in ((blocked, "blocked"), (conflicts, "in conflict"))
            if count
        ]
        whole = "Not up to date" if needed else "Up to date"
        message = f"{whole}, {' and '.join(counts)}. `p2psync status` shows which."
        return Finished(ExitCode.CONFLICTS, message)
    if there:
        return Finished(ExitCode.CONFLICTS, BLOCKED_THERE)
    return Finished(ExitCode.DONE)
