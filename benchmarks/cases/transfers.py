"""First syncs: one big file, many small ones, and a system's mix of both."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Bars, Case, Column, Subject, Values
from benchmarks.lan import Link
from benchmarks.probe import timed, verify_same
from benchmarks.programs.base import Ground, Program
from benchmarks.programs.copying import Cp, Rsync, Unison
from benchmarks.programs.p2psync import P2PSync, P2PSyncWebRtc
from benchmarks.programs.syncthing import Syncthing

FEW: Final = 100  # files: so few can be removed without making the disk slow
TreeOf = Callable[[Bench], Path]
CONTESTANTS: Final[tuple[Callable[[], Program], ...]] = (
    *(Cp, Rsync, Unison, Syncthing),
    *(P2PSync, P2PSyncWebRtc),
)


def first_sync(
    contestant: Callable[[], Program], tree: TreeOf, link: Link | None = None
) -> Callable[[Bench], Values]:
    """Return the measurement of one program's first sync of a tree over a link."""

    def measure(bench: Bench) -> Values:
        source = tree(bench)
        size = trees.bytes_in(source)
        few = trees.files_in(source) < FEW
        with (
            bench.passing() if few else nullcontext(bench.fresh()) as place,
            bench.lan(link=link) as lan,
        ):
            program = contestant()
            program.start(Ground(lan, place / "scratch", source, place / "target"))
            before = lan.wire_bytes("b")
            seconds = timed(program.first_sync)
            received, sent = (
                now - then for now, then in zip(lan.wire_bytes("b"), before, strict=True)
            )
            program.settle()
            verify_same(source, place / "target")
        values = {
            "s": seconds,
            "mb_s": size / seconds / 1e6,
            "wire_mb": (received + sent) / 1e6,
        }
        if link is not None:
            share = 100 * 8 / (link.mbit_s * 1e6 * seconds)
            values |= {"used_percent": size * share, "filled_percent": received * share}
        return values

    return measure


def big_file(bench: Bench) -> Path:
    """One file of 1 GiB that does not compress."""
    size = bench.size(1024, 32) * trees.MIB
    return bench.tree("big", lambda target: trees.big_file(target, size))


def small_files(bench: Bench) -> Path:
    """/usr/include."""
    count = 500 if bench.quick else None
    return bench.tree("small", lambda target: trees.small_files(target, count))


def mix(bench: Bench) -> Path:
    """/usr/share."""
    count = 1_000 if bench.quick else None
    return bench.tree("mix", lambda target: trees.mix(target, count))


def _case(name: str, about: str, tree: TreeOf, free_gib: float, rare: tuple[str, ...]) -> Case:
    subjects = []
    for contestant in CONTESTANTS:
        called = contestant().name
        rounds = 1 if called in rare else None
        subjects.append(Subject(called, first_sync(contestant, tree), rounds))
    return Case(
        name,
        about,
        subjects,
        (
            Column("seconds", "s"),
            Column("MB/s", "mb_s", digits=1),
            Column("MB on the wire", "wire_mb", digits=1),
        ),
        ratio_to=("cp -a", "rsync"),
        free_gib=free_gib,
        notes=NOTES,
        chart=Bars("seconds"),
    )


NOTES: Final = (
    "p2psync is timed as a person sees it: from `p2psync share` of a full folder that nobody "
    "has looked at yet, until `p2psync accept` on the other host has ended; Syncthing from the "
    "moment when two connected instances are told of the folder until both are in sync. cp, "
    "rsync and Unison include a `sync -f` of the destination.",
)
CASES: Final = (
    _case("big", "first sync of one random file of 1 GiB", big_file, 8, ()),
    _case("small", "first sync of many small files, /usr/include", small_files, 2, ()),
    _case("mix", "first sync of a mix, /usr/share", mix, 5, ("Syncthing",)),
)
