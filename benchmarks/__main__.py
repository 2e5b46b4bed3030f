"""The command: which cases to run, how often, and where to put what was found.

    scripts/bench                    every case but the big ones; writes docs/performance.*
    scripts/bench mix latency        these
    scripts/bench mix --subject p2   only the rows whose names begin so; writes nothing
    scripts/bench --list             the cases, a line each
    scripts/bench --quick            small and once, to see that they work; writes nothing

A case that is measured again replaces its last figures; all others stay.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import FrameType

from benchmarks import report, results, tables
from benchmarks.bench import Bench, say
from benchmarks.case import Case
from benchmarks.cases import CASES

JSON = results.CHECKOUT / "docs" / "performance.json"
PAGE = results.CHECKOUT / "docs" / "performance.md"


def main() -> int:
    """Run what was asked for; return 1 if anything in it failed."""
    options = parsed()
    if options.list:
        width = max(len(case.name) for case in CASES)
        for case in CASES:
            print(f"{case.name:{width}}  {case.about}{' (big)' if case.big else ''}")
        return 0
    if options.draw:
        report.draw(CASES, results.load(JSON), PAGE)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    options.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="p2psync-bench-", dir=options.work))
    try:
        cases = narrowed(chosen(options.cases, options.big), options.subject or [""])
        return run(cases, options, Bench(work, quick=options.quick))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    finally:
        say(f"{'keeping' if options.keep else 'removing'} {work}")
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures p2psync beside cp, rsync, Unison, Syncthing.",
    )
    names = [case.name for case in CASES]
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help="run only these; see --list")
    add("--list", action="store_true", help="list the cases and end")
    add("--quick", action="store_true", help="small and once: does it work?")
    add("--big", action="store_true", help="the cases with a million files too")
    add("--subject", action="append", help="only rows whose names begin so; more than once")
    add("--rounds", type=int, default=3, help="how often each is measured (default: 3)")
    add("--json", type=Path, help=f"where figures go (default: {JSON.name} in docs)")
    add(
        "--work", type=Path, default=Path("/var/tmp"), help="where trees go (default: /var/tmp)"
    )
    add("--keep", action="store_true", help="leave the trees: removing many slows the disk")
    add("--draw", action="store_true", help="only write the page anew from the JSON")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(names):
        parser.error(
            f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(names)}"
        )
    return options


def chosen(names: list[str], big: bool) -> list[Case]:
    """Return the cases that were named, or all, the big ones only if they are wanted."""
    if names:
        return [case for case in CASES if case.name in names]
    return [case for case in CASES if big or not case.big]


def narrowed(cases: list[Case], beginnings: list[str]) -> list[Case]:
    """Return the cases with only those subjects whose names begin with one of these."""
    return [
        replace(
            case,
            subjects=[one for one in case.subjects if one.name.startswith(tuple(beginnings))],
        )
        for case in cases
    ]


def run(cases: list[Case], options: argparse.Namespace, bench: Bench) -> int:
    """Run the cases one by one; each is kept and shown as soon as it is done."""
    rounds = 1 if options.quick else options.rounds
    whole = not (options.quick or options.subject)
    file = options.json or (JSON if whole else None)
    failed = []
    for case in cases:
        result = bench.run(case, rounds, results.new_result(rounds, options.quick))
        failed += [f"{case.name}: {name}" for name in result.failures]
        print(f"\n{case.name}: {case.about}")
        print(tables.aligned(tables.table(case, result)), end="\n\n", flush=True)
        if file is not None:
            found = results.merge(file, case.name, result)
            if file == JSON:
                report.draw(CASES, found, PAGE)
    for name in failed:
        print(f"failed: {name}")
    return int(bool(failed))


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
