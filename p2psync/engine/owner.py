"""What fetching needs of the replica it works for, and nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from p2psync.core.index import Want
from p2psync.engine.apply import Applied
from p2psync.engine.link import Link
from p2psync.engine.stock import Stock
from p2psync.engine.worker import Worker
from p2psync.fs.partial import Partial
from p2psync.fs.staging import Prepared

UNANSWERED = "it does not answer what it is asked"


class Owner(Protocol):
    """What fetching needs of the replica it works for."""

    folder: bytes
    links: list[Link]
    stock: Stock
    worker: Worker

    @property
    def may_apply(self) -> bool:
        """False while nothing may be changed on the disk."""
        ...

    async def apply(
        self,
        wants: Mapping[bytes, Want],
        staged: Mapping[bytes, Prepared],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply one batch; see `Applier.apply`."""
        ...

    async def move_directories(self) -> Applied:
        """Rename whole directories where that is all there is to do; see `engine.moves`."""
        ...

    def took(self, applied: Applied) -> None:
        """Keep what a batch came to."""
        ...
