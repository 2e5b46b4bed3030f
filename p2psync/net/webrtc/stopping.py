"""Closes the layers of a connection, whoever dropped it and whether he waits or not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

from aiortc import RTCDtlsTransport, RTCIceTransport, RTCSctpTransport

log = logging.getLogger(__name__)

_background: set[asyncio.Task[None]] = set()


def in_background(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Run what closes a connection to its end, whatever becomes of who started it."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def stop(*layers: RTCSctpTransport | RTCDtlsTransport | RTCIceTransport) -> None:
    """Stop the layers, the highest first; whatever is the matter with one, all of them."""
    for layer in layers:
        try:
            await layer.stop()
        except Exception as error:
            log.debug("while closing a connection: %r", error)
