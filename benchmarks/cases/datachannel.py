"""How fast a WebRTC data channel is by itself: aiortc as it is, and as p2psync uses it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.case import Bars, Case, Column, Subject, Values
from benchmarks.probe import CaseError

SECONDS: Final = 8
END_TIMEOUT_S: Final = 60.0


def rate(kind: str, loop: str) -> Callable[[Bench], Values]:
    """Return the measurement of a kind of end on a kind of event loop."""

    def measure(bench: Bench) -> Values:
        with bench.lan() as lan:
            ends: list[subprocess.Popen[Any]] = [
                lan.popen(
                    host,
                    [
                        *("timeout", f"{END_TIMEOUT_S:.0f}"),
                        *(
                            sys.executable,
                            "-P",
                            "-m",
                            "benchmarks.channel_end",
                            kind,
                            loop,
                            role,
                        ),
                        *(lan.address(host), str(bench.size(SECONDS, 1))),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for host, role in (("a", "send"), ("b", "receive"))
            ]
            sender, receiver = ends
            _tell(sender, receiver)
            _tell(receiver, sender)
            said, _ = receiver.communicate(timeout=END_TIMEOUT_S)
        if receiver.returncode:
            raise CaseError(f"the receiving end failed with {receiver.returncode}")
        return {"mb_s": float(said)}

    return measure


def _tell(one: subprocess.Popen[Any], other: subprocess.Popen[Any]) -> None:
    """Carry a line from one end to the other."""
    assert one.stdout is not None
    assert other.stdin is not None
    line = one.stdout.readline()
    if not line:
        raise CaseError(f"an end said nothing and ended with {one.wait(END_TIMEOUT_S)}")
    other.stdin.write(line)
    other.stdin.flush()


CASE: Final = Case(
    "datachannel",
    "a WebRTC data channel between two processes, messages of 64 KiB",
    [
        Subject("stock aiortc", rate("stock", "asyncio")),
        Subject("stock aiortc, uvloop", rate("stock", "uvloop")),
        Subject("p2psync", rate("ours", "uvloop")),
        Subject("p2psync, asyncio", rate("ours", "asyncio")),
    ],
    [Column("MB/s", "mb_s", digits=1)],
    ratio_to=("stock aiortc",),
    notes=("Agents run on uvloop where it exists. Here more is better.",),
    chart=Bars("MB/s"),
)
