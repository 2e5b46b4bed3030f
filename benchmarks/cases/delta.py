"""A change to a large file: what travels, and how long it takes."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Bars, Case, Column, Subject, Values
from benchmarks.lan import BenchLan
from benchmarks.probe import verify_same
from benchmarks.programs.base import Ground, Program
from benchmarks.programs.copying import Rsync, Unison, WholeRsync
from benchmarks.programs.p2psync import P2PSync, P2PSyncWebRtc
from benchmarks.programs.syncthing import Syncthing

UPDATE_TIMEOUT_S: Final = 300.0
WHOLE_SECOND_S: Final = 1.1  # Unison takes no notice of a second change within one
INSERTED: Final = random.Random(4).randbytes(trees.MIB)
CONTESTANTS: Final[tuple[Callable[[], Program], ...]] = (
    *(Rsync, WholeRsync, Unison, Syncthing),
    *(P2PSync, P2PSyncWebRtc),
)


def delta(contestant: Callable[[], Program]) -> Callable[[Bench], Values]:
    """Return the measurement: 1 MiB inserted at the front, then one byte changed."""

    def measure(bench: Bench) -> Values:
        with bench.passing() as place, bench.lan() as lan:
            source, target = place / "source", place / "target"
            trees.big_file(source, bench.size(1024, 32) * trees.MIB)
            trees.copy(source, target)
            program = contestant()
            program.start(Ground(lan, place / "scratch", source, target))
            program.first_sync()
            program.settle()
            file, there = source / "big", target / "big"
            longer = _with_front(file, place / "longer")
            size = longer.stat().st_size
            os.sync()
            insert_s, insert = _changed(
                program, lan, partial(os.replace, longer, file), lambda: _size(there) == size
            )
            verify_same(source, target)
            os.sync()
            time.sleep(WHOLE_SECOND_S)
            middle, old = size // 2, _byte(file, size // 2)
            new = bytes([old[0] ^ 1])
            byte_s, byte = _changed(
                program,
                lan,
                partial(_set_byte, file, middle, new),
                lambda: _byte(there, middle) == new,
            )
            verify_same(source, target)
        return {
            "insert_s": insert_s,
            "insert_mb": insert / 1e6,
            "byte_s": byte_s,
            "byte_kb": byte / 1e3,
        }

    return measure


def _changed(
    program: Program, lan: BenchLan, change: Callable[[], object], arrived: Callable[[], bool]
) -> tuple[float, int]:
    """Change something; return the seconds until it arrived and the bytes all of it took."""
    before = sum(lan.wire_bytes("b"))
    began = time.perf_counter()
    change()
    program.update(arrived, UPDATE_TIMEOUT_S)
    seconds = time.perf_counter() - began
    program.settle()
    return seconds, sum(lan.wire_bytes("b")) - before


def _with_front(file: Path, longer: Path) -> Path:
    with longer.open("wb") as to, file.open("rb") as old:
        to.write(INSERTED)
        while piece := old.read(trees.MIB):
            to.write(piece)
    return longer


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1


def _byte(file: Path, at: int) -> bytes:
    try:
        with file.open("rb") as opened:
            return os.pread(opened.fileno(), 1, at)
    except FileNotFoundError:
        return b""


def _set_byte(file: Path, at: int, byte: bytes) -> None:
    with file.open("r+b") as opened:
        os.pwrite(opened.fileno(), byte, at)


CASE: Final = Case(
    "delta",
    "1 MiB inserted at the front of a file of 1 GiB, then one byte changed in its middle",
    [Subject(one().name, delta(one)) for one in CONTESTANTS],
    [
        Column("insert s", "insert_s"),
        Column("MB on the wire", "insert_mb"),
        Column("one byte s", "byte_s"),
        Column("kB on the wire", "byte_kb", digits=1),
    ],
    ratio_to=("rsync",),
    free_gib=8,
    notes=(
        "Until the other side shows the new file; rsync and Unison until they have ended and a "
        "`sync -f` of the destination. All bytes of both directions, headers included.",
        "Over ssh rsync's default is its delta transfer (`--no-whole-file`).",
    ),
    chart=Bars("insert s"),
)
