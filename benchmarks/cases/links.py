"""First syncs over a slow link, clean and lossy; and a small save while one is going on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Bars, Case, Column, Subject, Values
from benchmarks.cases.transfers import TreeOf, first_sync
from benchmarks.lan import LOSSY, SHAPED, Link
from benchmarks.probe import CaseError, shows, until
from benchmarks.programs.base import Ground
from benchmarks.programs.copying import Rsync
from benchmarks.programs.p2psync import P2PSync, P2PSyncWebRtc

CONTESTANTS: Final = (Rsync, P2PSync, P2PSyncWebRtc)
UNDER_WAY_BYTES: Final = 3_000_000
EDITS: Final = 8
PAUSE_S: Final = 0.3
ARRIVAL_TIMEOUT_S: Final = 60.0


def big_file(mib: int) -> TreeOf:
    """One file that takes 10 to 20 s on this link."""

    def tree(bench: Bench) -> Path:
        size = bench.size(mib, 4)
        return bench.tree(f"big-{size}", lambda to: trees.big_file(to, size * trees.MIB))

    return tree


def small_files(count: int | None) -> TreeOf:
    """So many files of /usr/include (None: all), which take 10 to 20 s on this link."""

    def tree(bench: Bench) -> Path:
        limit = 200 if bench.quick else count
        return bench.tree(f"small-{limit}", lambda to: trees.small_files(to, limit))

    return tree


def edit_in_bulk(contestant: type[P2PSync]) -> Callable[[Bench], Values]:
    """Return the measurement of small saves, each way, while a large file is on its way."""

    def measure(bench: Bench) -> Values:
        with bench.passing() as place, bench.lan(link=SHAPED) as lan:
            source, target, bulk = (place / name for name in ("source", "target", "bulk"))
            trees.tiny_files(source, 100)
            trees.copy(source, target)
            trees.big_file(bulk, bench.size(200, 40) * trees.MIB)
            os.sync()
            program = contestant()
            program.start(Ground(lan, place / "scratch", source, target))
            program.first_sync()
            program.settle()
            before = lan.wire_bytes("b")[0]
            (bulk / "big").rename(source / "big")
            until(
                lambda: lan.wire_bytes("b")[0] - before > UNDER_WAY_BYTES,
                "the large file is under way",
                ARRIVAL_TIMEOUT_S,
            )
            found: dict[str, list[float]] = {"out_ms": [], "back_ms": []}
            for number in range(bench.size(EDITS, 2)):
                for key, here, there in (
                    ("out_ms", source, target),
                    ("back_ms", target, source),
                ):
                    time.sleep(PAUSE_S)
                    took = _edit(program, here, there, f"{key} {number}".encode())
                    if not (target / "big").exists():
                        found[key].append(took)
        if not all(found.values()):
            raise CaseError("the large file was faster than the first save")
        return found

    return measure


def _edit(program: P2PSync, here: Path, there: Path, content: bytes) -> float:
    name = Path("0000", "007")
    began = time.perf_counter()
    (here / name).write_bytes(content)
    program.update(partial(shows, there / name, content), ARRIVAL_TIMEOUT_S)
    return (time.perf_counter() - began) * 1000


def _case(name: str, about: str, link: Link, tree: TreeOf) -> Case:
    return Case(
        name,
        f"{about} over {link.words}",
        [Subject(one().name, first_sync(one, tree, link)) for one in CONTESTANTS],
        [
            Column("seconds", "s"),
            Column("MB/s", "mb_s"),
            Column("contents, % of the link", "used_percent", digits=1),
            Column("link filled %", "filled_percent", digits=1),
        ],
        ratio_to=("rsync",),
        notes=(
            f"A queue of {link.queue_bytes // 1000} kB before the slow part. Contents: their "
            "bytes as a share of what the link could have carried in the time, pairing too; "
            "equal contents may travel once. Filled: everything the receiver's interface took "
            "in, headers and repetitions too.",
        ),
        chart=Bars("seconds"),
    )


CASES: Final = (
    _case("shaped-big", "first sync of one file of 160 MiB", SHAPED, big_file(160)),
    _case("shaped-small", "first sync of /usr/include", SHAPED, small_files(None)),
    _case("lossy-big", "first sync of one file of 12 MiB", LOSSY, big_file(12)),
    _case("lossy-small", "first sync of 700 files of /usr/include", LOSSY, small_files(700)),
    Case(
        "edit-in-bulk",
        f"small saves while a file of 200 MiB is on its way, over {SHAPED.words}",
        [Subject(one().name, edit_in_bulk(one)) for one in (P2PSync, P2PSyncWebRtc)],
        [
            Column("with the bulk: median ms", "out_ms", digits=0),
            Column("worst ms", "out_ms", max, 0),
            Column("against it: median ms", "back_ms", digits=0),
            Column("worst ms ", "back_ms", max, 0),
        ],
        notes=(f"{EDITS} saves each way a round, {PAUSE_S} s apart.",),
        chart=Bars("with the bulk: median ms"),
    ),
)
