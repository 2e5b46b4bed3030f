"""Looks at files, processes and the disk from outside, without asking who is measured."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

POLL_S: Final = 0.0003  # finer than the millisecond that is told
LONG_S: Final = 1_800
TICKS: Final = os.sysconf("SC_CLK_TCK")
OTHERS_MARKS: Final = (".p2psync", ".stfolder", ".stversions")


class CaseError(Exception):
    """A measurement that went wrong, with the reason in words."""


def timed(act: Callable[[], object]) -> float:
    """Do something; return the seconds it took."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def until(
    condition: Callable[[], object], what: str, timeout_s: float, poll_s: float = POLL_S
) -> float:
    """Wait until a condition holds; return the seconds.

    Raises:
        CaseError: it did not within the time.
    """
    began = time.perf_counter()
    while not condition():
        if time.perf_counter() - began > timeout_s:
            raise CaseError(f"not in {timeout_s:.0f} s: {what}")
        time.sleep(poll_s)
    return time.perf_counter() - began


def shows(path: Path, content: bytes) -> bool:
    """Say whether a small file holds exactly this content now."""
    try:
        return path.read_bytes() == content
    except FileNotFoundError:
        return False


def sync_filesystem(path: Path) -> None:
    """Wait until everything on the filesystem of path is durable."""
    subprocess.run(["sync", "-f", path], check=True, timeout=LONG_S)


def verify_same(one: Path, other: Path) -> None:
    """Compare two trees byte by byte, but for what sync programs put in for themselves.

    Raises:
        CaseError: they differ.
    """
    marks = [part for mark in OTHERS_MARKS for part in ("-x", mark)]
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", "-q", *marks, one, other],
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )
    if done.returncode:
        raise CaseError(f"the two sides differ: {(done.stdout + done.stderr)[:300]}")


def fsync_times_ms(directory: Path, count: int) -> list[float]:
    """Return how long writing a 4 KiB file and making it durable takes, each time."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        with (directory / f"fsync-{number}").open("wb") as file:
            file.write(os.urandom(4096))
            file.flush()
            os.fsync(file.fileno())
        times.append((time.perf_counter() - began) * 1000)
    return times


# processes


class Memory(NamedTuple):
    """What a process holds, in MB; peak since it began or since `forget_peak`."""

    rss: float
    pss: float
    peak: float


def memory(pid: int) -> Memory:
    """Return what a process holds now."""
    fields = _fields(pid, "status") | _fields(pid, "smaps_rollup")
    return Memory(*(fields[key] * 1024 / 1e6 for key in ("Rss", "Pss", "VmHWM")))


def forget_peak(pid: int) -> None:
    """Let the process's peak of memory begin anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used, all threads, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def reads(pid: int) -> tuple[int, float]:
    """Return how many read system calls a process has made, and the MB they returned."""
    fields = _fields(pid, "io")
    return fields["syscr"], fields["rchar"] / 1e6


def _fields(pid: int, name: str) -> dict[str, int]:
    found = {}
    for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
        key, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            found[key] = int(number[0])
    return found
