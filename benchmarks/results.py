"""The figures as they are kept: one JSON file, a case replaced when it is measured again.

Every single value is kept, beside the commit, the day and the machine it is of.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.case import Values
from benchmarks.lan import congestion_control

CHECKOUT: Final = Path(__file__).resolve().parent.parent
PROGRAMS: Final = {
    "rsync": ("rsync", "--version"),
    "Unison": ("unison", "-version"),
    "Syncthing": ("syncthing", "--version"),
    "ssh": ("ssh", "-V"),
}


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    cores: int
    processor: str
    memory_gib: float
    kernel: str
    python: str
    tcp: str
    programs: dict[str, str]


class CaseResult(msgspec.Struct):
    """What was found in one run of a case.

    values: subject -> key -> every single value, in order. failures: subject -> reasons.
    """

    commit: str
    date: str
    machine: Machine
    rounds: int
    quick: bool = False
    values: dict[str, dict[str, list[float]]] = msgspec.field(default_factory=dict)
    failures: dict[str, list[str]] = msgspec.field(default_factory=dict)

    def add(self, subject: str, values: Values) -> None:
        """Add what one measurement found."""
        mine = self.values.setdefault(subject, {})
        for key, found in values.items():
            many = [found] if isinstance(found, int | float) else found
            mine.setdefault(key, []).extend(round(value, 4) for value in many)

    def failed(self, subject: str, reason: str) -> None:
        """Remember that a measurement went wrong."""
        self.failures.setdefault(subject, []).append(reason)


class Results(msgspec.Struct):
    """The whole file: the last result of every case, by name."""

    cases: dict[str, CaseResult] = msgspec.field(default_factory=dict)


def load(file: Path) -> Results:
    """Return what the file holds; nothing, if there is none.

    Raises:
        msgspec.ValidationError: it is something else.
    """
    if not file.exists():
        return Results()
    return msgspec.json.decode(file.read_bytes(), type=Results)


def merge(file: Path, name: str, result: CaseResult) -> Results:
    """Put a case's new result into the file in place of its last; return what it holds now."""
    results = load(file)
    results.cases[name] = result
    results.cases = dict(sorted(results.cases.items()))
    fresh = file.with_suffix(".new")
    fresh.write_bytes(_folded(msgspec.json.format(msgspec.json.encode(results), indent=1)))
    fresh.rename(file)
    return results


def new_result(rounds: int, quick: bool) -> CaseResult:
    """Return an empty result that says what is measured, when and where."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return CaseResult(_commit(), today, this_machine(), rounds, quick)


def this_machine() -> Machine:
    """Return what this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return Machine(
        cores=os.cpu_count() or 1,
        processor=names[0] if names else platform.machine(),
        memory_gib=round(memory, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        tcp=congestion_control(),
        programs={name: _version(argv) for name, argv in PROGRAMS.items()},
    )


def _version(argv: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return "missing"
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return found.group() if found else "unknown"


def _commit() -> str:
    def git(*arguments: str) -> str:
        argv = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=20, check=False
        ).stdout.strip()

    head = git("rev-parse", "--short", "HEAD") or "unknown"
    return f"{head} and changes" if git("status", "--porcelain") else head


def _folded(text: bytes) -> bytes:
    """Put each list of numbers on one line: a case's values then read as a table."""
    return re.sub(rb"\[\s+([^\[\]{}\"]*?)\s+\]", _one_line, text) + b"\n"


def _one_line(match: re.Match[bytes]) -> bytes:
    return b"[" + re.sub(rb"\s+", b" ", match.group(1)) + b"]"
