"""Whether cost grows in step with the work: first scan, first sync, memory by files."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Case, Column, Lines, Subject, Values
from benchmarks.probe import memory, timed, until, verify_same
from benchmarks.programs.base import FIRST_SYNC_TIMEOUT_S
from benchmarks.programs.p2psync import agent_host, agent_pid, folders

COUNTS: Final = (10_000, 100_000, 1_000_000)
SHRUNK: Final = 20  # by how much `--quick` divides
POLL_S: Final = 0.02


def scaled(files: int) -> Callable[[Bench], Values]:
    """Return the measurement with so many files."""

    def measure(bench: Bench) -> Values:
        count = bench.size(files, files // SHRUNK)
        source = bench.tree(f"scaling-{count}", partial(trees.tiny_files, count=count))
        place = bench.fresh()
        with bench.lan() as lan:
            a = agent_host(lan, "a", place, source)
            b = agent_host(lan, "b", place, place / "target")
            for host in (a, b):
                host.start()
            began = time.perf_counter()
            code, sharing = a.start_share()
            until(
                lambda: [each.state for each in folders(a)] not in ([], ["scanning"]),
                "the first scan",
                FIRST_SYNC_TIMEOUT_S,
                POLL_S,
            )
            scan_s = time.perf_counter() - began
            sync_s = timed(partial(b.accept, code, timeout_s=FIRST_SYNC_TIMEOUT_S))
            sharing.end()
            peaks = [memory(agent_pid(host)).peak for host in (a, b)]
            verify_same(source, place / "target")
        return {"scan_s": scan_s, "sync_s": sync_s, "a_mb": peaks[0], "b_mb": peaks[1]}

    return measure


CASE: Final = Case(
    "scaling",
    "10 k, 100 k and 1 M files of 16 bytes: first scan, first sync after it, peaks of memory",
    [Subject(f"{count:,} files", scaled(count)) for count in COUNTS],
    [
        Column("first scan s", "scan_s"),
        Column("first sync s", "sync_s"),
        Column("sharer's peak MB", "a_mb", digits=0),
        Column("accepter's peak MB", "b_mb", digits=0),
    ],
    big=True,
    free_gib=20,
    notes=("A thousand files to a directory. The sync begins when the scan has ended.",),
    chart=Lines(
        "seconds and megabytes by number of files, both scales logarithmic",
        {f"{count:,} files": float(count) for count in COUNTS},
        ("first scan s", "first sync s", "sharer's peak MB", "accepter's peak MB"),
    ),
)
