"""A directory of 48,000 files gets another name: what travels, and what the other side does."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Case, Column, Subject, Values
from benchmarks.probe import verify_same
from benchmarks.programs.base import Ground, Program
from benchmarks.programs.copying import Rsync, Unison
from benchmarks.programs.p2psync import P2PSync, P2PSyncWebRtc
from benchmarks.programs.syncthing import Syncthing

UPDATE_TIMEOUT_S: Final = 900.0
CONTESTANTS: Final[tuple[Callable[[], Program], ...]] = (
    *(Rsync, Unison, Syncthing),
    *(P2PSync, P2PSyncWebRtc),
)


def renamed(contestant: Callable[[], Program]) -> Callable[[Bench], Values]:
    """Return the measurement of one program."""

    def measure(bench: Bench) -> Values:
        count = bench.size(48_000, 2_000)
        tree = bench.tree(
            "renamed", lambda to: trees.tiny_files(to / "old name", count, size_bytes=200)
        )
        source, target, scratch = bench.seeded(tree)
        with bench.lan() as lan:
            program = contestant()
            program.start(Ground(lan, scratch, source, target))
            program.first_sync()
            program.settle()
            known = objects(target)
            os.sync()
            before = sum(lan.wire_bytes("b"))
            began = time.perf_counter()
            (source / "old name").rename(source / "new name")
            program.update(partial(_arrived, target, count), UPDATE_TIMEOUT_S)
            seconds = time.perf_counter() - began
            program.settle()
            wire = sum(lan.wire_bytes("b")) - before
            verify_same(source, target)
            found = objects(target)
        made = len(set(found.values()) - set(known.values()))
        values = {"s": seconds, "wire_mb": wire / 1e6}
        return values | {"renames": renames(known, found), "made": made}

    return measure


def objects(top: Path) -> dict[str, str]:
    """Return what identifies each object below a directory, by relative path.

    That is its inode and when it was born: freed inodes are soon used again.
    """
    argv = [*("find", ".", "-mindepth", "1", "-name", ".*", "-prune", "-o", "-exec")]
    argv += ["stat", "--printf", r"%i %w//%n\0", "{}", "+"]
    done = subprocess.run(argv, cwd=top, capture_output=True, text=True, timeout=60, check=True)
    lines = (line.partition("//./") for line in done.stdout.split("\0") if line)
    return {path: identity for identity, _, path in lines}


def renames(old: Mapping[str, object], new: Mapping[str, object]) -> int:
    """Count the renames that lead from one state to the other: what moved by itself.

    What only went along with its directory, which was renamed, does not count.
    """
    places = {identity: path for path, identity in old.items()}
    count = 0
    for path, identity in new.items():
        was = places.get(identity)
        if was is None or was == path:
            continue
        directory, name = os.path.split(path)
        old_directory, old_name = os.path.split(was)
        went_along = new.get(directory, 0) == old.get(old_directory, 0)
        count += not (went_along and name == old_name)
    return count


def _arrived(target: Path, count: int) -> bool:
    gone = not (target / "old name").exists()
    return gone and trees.files_in(target / "new name") == count


CASE: Final = Case(
    "rename",
    "a directory of 48,000 files renamed",
    [
        Subject(one().name, renamed(one), rounds=1 if one is Syncthing else None)
        for one in CONTESTANTS
    ],
    [
        Column("seconds", "s"),
        Column("MB on the wire", "wire_mb"),
        Column("renames on the other side", "renames", digits=0),
        Column("made anew there", "made", digits=0),
    ],
    free_gib=4,
    notes=(
        "Renames are counted by which inodes stand where before and after; what was made anew, "
        "files and directories, is another inode or has another time of birth.",
    ),
)
