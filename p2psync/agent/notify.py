"""Tells systemd how the agent is: ready, alive, stopping (`sd_notify(3)` by hand)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Sends states to the service manager; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, as systemd sets them."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # Linux's abstract namespace
            self._address = "\0" + self._address[1:]
        period_us = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.period_s = int(period_us) / 1e6 if period_us.isdigit() and ours else None
        """How long the service manager waits for a sign of life; None: it does not."""

    def ready(self) -> None:
        """Say that the agent answers."""
        self._send("READY=1", f"MAINPID={os.getpid()}")

    def stopping(self) -> None:
        """Say that the agent is about to end."""
        self._send("STOPPING=1")

    async def stay_alive(self) -> None:
        """Give a sign of life three times per period, as long as the event loop turns."""
        while self.period_s:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.period_s / 3)

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
                to.connect(self._address)
                to.send("\n".join(lines).encode())
        except OSError as error:
            log.warning("the service manager cannot be told: %s", error)
