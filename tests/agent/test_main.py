"""How the agent ends when it does not want to, and what it says when it cannot begin."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from p2psync.agent.main import reason_for
from p2psync.errors import StoreError, UserError

STUBBORN = """
import asyncio
from p2psync.agent.main import Stop
from p2psync.agent.notify import Notifier

async def main():
    Stop(lambda: None, Notifier({}))     # whatever it asks to end does not
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def stubborn(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_l11_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Whoever asks twice means now."""
    with stubborn(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.send_signal(signal.SIGTERM)

        assert process.wait(2) == 1


@pytest.mark.slow
def test_l11_five_seconds_are_the_end(tmp_path: Path) -> None:
    """Work that does not end when asked is not waited for any longer."""
    with stubborn(tmp_path) as process:
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 1
        assert 4 < time.monotonic() - began < 7


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ValueError("plain"), "plain"),
        (BaseExceptionGroup("g", [ValueError("bug")]), "g (1 sub-exception)"),
        (
            BaseExceptionGroup(
                "g",
                [ValueError("bug"), ExceptionGroup("h", [StoreError("s"), UserError("u")])],
            ),
            "u",
        ),
        (ExceptionGroup("g", [ValueError("bug"), StoreError("s")]), "s"),
    ],
)
def test_of_several_errors_the_users_own_is_told(raised: BaseException, told: str) -> None:
    """A task group's errors become the one sentence that helps."""
    assert str(reason_for(raised)) == told
