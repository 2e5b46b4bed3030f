"""How long after a save the other side shows it, in a folder with 50,000 other files."""

from __future__ import annotations

import itertools
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
from benchmarks.probe import fsync_times_ms, shows
from benchmarks.programs.base import Ground, Program
from benchmarks.programs.p2psync import P2PSync, P2PSyncWebRtc
from benchmarks.programs.syncthing import Syncthing
from benchmarks.stats import p50, p99, worst

SAVED_BYTES: Final = 4_096
PAUSE_S: Final = (0.05, 0.15)  # between two saves, so that none meets the work of the last
QUIET_S: Final = 3.0
ARRIVAL_TIMEOUT_S: Final = 60.0
FSYNCS: Final = 200


def overwrite(path: Path, content: bytes) -> None:
    """Save as `echo > file` does."""
    path.write_bytes(content)


def replace(path: Path, content: bytes) -> None:
    """Save as editors do: a new file beside it, then renamed over it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    os.replace(beside, path)


STYLES: Final = {"overwrite_ms": overwrite, "replace_ms": replace}


def save_to_visible(contestant: Callable[[], Program], saves: int) -> Callable[[Bench], Values]:
    """Return the measurement of a program: so many saves of each style, each way."""

    def measure(bench: Bench) -> Values:
        count = bench.size(50_000, 2_000)
        tree = bench.tree("many", partial(trees.tiny_files, count=count, size_bytes=200))
        source, target, scratch = bench.seeded(tree)
        with bench.lan() as lan:
            program = contestant()
            program.start(Ground(lan, scratch, source, target))
            program.first_sync()
            program.settle()
            time.sleep(QUIET_S)
            return _saves(program, (source, target), count, bench.size(saves, 3))

    return measure


def _saves(
    program: Program, sides: tuple[Path, Path], files: int, saves: int
) -> dict[str, list[float]]:
    """Save random files, each style, each way in turn; return the milliseconds by style."""
    generator = random.Random(3)
    found: dict[str, list[float]] = {style: [] for style in STYLES}
    for _ in range(saves):
        for style, here, there in itertools.product(STYLES, sides, sides):
            if here != there:
                path = _any_file(generator, files)
                content = generator.randbytes(SAVED_BYTES)
                began = time.perf_counter()
                STYLES[style](here / path, content)
                program.update(partial(shows, there / path, content), ARRIVAL_TIMEOUT_S)
                found[style].append((time.perf_counter() - began) * 1000)
                time.sleep(generator.uniform(*PAUSE_S))
    return found


def own_fsync(bench: Bench) -> Values:
    """What this machine's disk takes to make one small file durable."""
    times = fsync_times_ms(bench.fresh(), bench.size(FSYNCS, 20))
    return {"overwrite_ms": times}


def _any_file(generator: random.Random, count: int) -> Path:
    number = generator.randrange(count)
    return Path(f"{number // trees.PER_DIRECTORY:04}", f"{number % trees.PER_DIRECTORY:03}")


CASE: Final = Case(
    "latency",
    "from a save until the other side shows it, beside 50,000 other files",
    [
        Subject("this disk's fsync", own_fsync),
        Subject("Syncthing", save_to_visible(Syncthing, 25), rounds=1),
        Subject("p2psync tls", save_to_visible(P2PSync, 100)),
        Subject("p2psync webrtc", save_to_visible(P2PSyncWebRtc, 100)),
    ],
    [
        Column("overwrite p50 ms", "overwrite_ms", p50, 1),
        Column("p99 ms", "overwrite_ms", p99, 1),
        Column("worst ms", "overwrite_ms", worst, 1),
        Column("replace p50 ms", "replace_ms", p50, 1),
        Column("p99 ms ", "replace_ms", p99, 1),
        Column("worst ms ", "replace_ms", worst, 1),
    ],
    notes=(
        "100 saves of 4 KiB each way, as a plain overwrite and as a new file renamed over the "
        "old one (25 each way with Syncthing, whose watcher waits 1 s here, 10 s by default). "
        "Seen by reading the file every 0.3 ms.",
        "The disk's own fsync is of a fresh 4 KiB file in the same filesystem, 200 a round.",
    ),
    chart=Bars("overwrite p50 ms"),
)
