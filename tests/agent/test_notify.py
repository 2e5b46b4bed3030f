"""What systemd is told, on a real notify socket."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.agent.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, socket.socket]]:
    """The address as systemd says it, and the socket behind it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + name[1:] if name.startswith("@") else name)
        server.settimeout(5)
        yield name, server


def test_ready_and_stopping_are_told(manager: tuple[str, socket.socket]) -> None:
    """In the words of sd_notify, over a path or Linux's abstract namespace."""
    address, server = manager
    notifier = Notifier({"NOTIFY_SOCKET": address})

    notifier.ready()
    assert server.recv(1000) == f"READY=1\nMAINPID={os.getpid()}".encode()
    notifier.stopping()
    assert server.recv(1000) == b"STOPPING=1"


async def test_signs_of_life_come_well_within_the_period(
    manager: tuple[str, socket.socket],
) -> None:
    """Three per period, from the event loop: when that hangs, they end."""
    address, server = manager
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "60000"})
    assert notifier.period_s == pytest.approx(0.06)

    task = asyncio.create_task(notifier.stay_alive())
    for _ in range(3):
        assert await asyncio.to_thread(server.recv, 1000) == b"WATCHDOG=1"
    task.cancel()


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}],
    ids=["nothing", "garbled", "for another process"],
)
async def test_without_a_watchdog_nothing_is_sent(environ: dict[str, str]) -> None:
    """Nobody waits for a sign of life: none is given."""
    notifier = Notifier(environ)

    assert notifier.period_s is None
    await notifier.stay_alive()
    notifier.ready()


def test_a_manager_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    """It is logged, and the agent works on."""
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
