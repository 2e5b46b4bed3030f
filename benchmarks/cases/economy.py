"""What a thousand small files cost in bytes on the wire and in calls that make durable."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Case, Column, Subject, Values
from benchmarks.probe import CaseError, until
from benchmarks.programs.base import Ground
from benchmarks.programs.p2psync import P2PSync, P2PSyncWebRtc, agent_pid

CALLS: Final = ("fsync", "fdatasync", "syncfs", "sync")
START_TIMEOUT_S: Final = 20.0
END_TIMEOUT_S: Final = 20.0


class Tracer:
    """strace on a running process, counting the calls that make durable."""

    def __init__(self, pid: int, place: Path) -> None:
        """Attach; the process is slower from now on."""
        place.mkdir()
        self._report, self._log = place / "report", place / "log"
        argv = ["strace", "-f", "-c", "-e", f"trace={','.join(CALLS)}", "-o", str(self._report)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*argv, "-p", str(pid)], stderr=log)
        until(lambda: "attached" in self._log.read_text(), "strace attaches", START_TIMEOUT_S)

    def end(self) -> int:
        """Detach; return how many calls there were."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            raise CaseError("strace does not end") from error
        return counted(self._report.read_text())


def counted(report: str) -> int:
    """Return the calls of all kinds in a report of `strace -c`."""
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+)(?: +\d+)? +(\w+)$", report, re.MULTILINE)
    return sum(int(calls) for calls, name in rows if name in CALLS)


def per_thousand(contestant: type[P2PSync]) -> Subject:
    """Return the subject: a first sync of small files under strace, which is not timed."""

    def measure(bench: Bench) -> Values:
        count = bench.size(10_000, 1_000)
        tree = bench.tree(f"economy-{count}", lambda to: trees.tiny_files(to, count, 1_000))
        place = bench.fresh()
        with bench.lan() as lan:
            program = contestant()
            program.start(Ground(lan, place / "scratch", tree, place / "target"))
            before = sum(lan.wire_bytes("b"))
            tracers = [
                Tracer(agent_pid(host), place / f"strace-{host.name}")
                for host in (program.a, program.b)
            ]
            program.first_sync()
            program.settle()
            wire = sum(lan.wire_bytes("b")) - before
            here, there = (tracer.end() for tracer in tracers)
        share = 1_000 / count
        contents = count * 1_000
        return {
            "here": here * share,
            "there": there * share,
            "wire_kb": wire * share / 1e3,
            "extra_bytes": (wire - contents) / count,
        }

    return Subject(contestant().name, measure)


CASE: Final = Case(
    "economy",
    "a first sync of small files: calls that make durable and bytes, per 1,000 files",
    [per_thousand(P2PSync), per_thousand(P2PSyncWebRtc)],
    [
        Column("fsyncs of the sharer", "here", digits=1),
        Column("of the accepter", "there", digits=1),
        Column("kB on the wire", "wire_kb", digits=0),
        Column("bytes a file beyond its contents", "extra_bytes", digits=0),
    ],
    notes=(
        "10,000 files of 1,000 bytes; fsync, fdatasync, syncfs and sync, counted by strace "
        "while nothing is timed; pairing included.",
    ),
)
