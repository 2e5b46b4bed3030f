"""What a running agent costs: memory while indexing and idle, idle CPU, `status`, a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Case, Column, Subject, Values
from benchmarks.probe import cpu_s, forget_peak, memory, reads, timed, until
from benchmarks.programs.base import FIRST_SYNC_TIMEOUT_S, Ground
from benchmarks.programs.p2psync import agent_host, agent_pid, folders, in_sync
from benchmarks.programs.syncthing import Syncthing
from tests.support.hosts import Host

FOLDERS: Final = 10
QUIET_S: Final = 10.0
IDLE_S: Final = 30.0
POLL_S: Final = 0.02
STATUSES: Final = 5


def agent(files: int, file_bytes: int, folder_count: int) -> Callable[[Bench], Values]:
    """Return the measurement of an agent with so many files in 1 or `FOLDERS` folders."""

    def measure(bench: Bench) -> Values:
        source, target = _trees(bench, files, file_bytes)
        pairs = [(source, target)]
        if folder_count > 1:
            pairs = [(source / name.name, target / name.name) for name in _folders(source)]
        with bench.lan() as lan:
            scratch = bench.fresh()
            a = agent_host(lan, "a", scratch, source)
            b = agent_host(lan, "b", scratch, target)
            for host in (a, b):
                host.start()
            values = _indexed(a, b, pairs)
            values |= _idle(agent_pid(a), bench.size(int(IDLE_S), 2))
            values["status_ms"] = [
                1000 * timed(partial(a.run, "status")) for _ in range(STATUSES)
            ]
            return values | _restarted(a)

    return measure


def _trees(bench: Bench, files: int, file_bytes: int) -> tuple[Path, Path]:
    """Return two equal trees of ten directories, which nobody changes."""
    count = bench.size(files, 2_000) // FOLDERS

    def make(target: Path) -> None:
        for number in range(FOLDERS):
            trees.tiny_files(target / f"folder-{number}", count, file_bytes)

    source = bench.tree(f"agent-{files}", make)
    return source, bench.tree(f"agent-{files}-too", partial(trees.copy, source))


def _folders(tree: Path) -> list[Path]:
    return sorted(tree.glob("folder-*"))


def _indexed(
    a: Host, b: Host, pairs: list[tuple[Path, Path]]
) -> dict[str, float | list[float]]:
    """Share all folders, then let the other side take them; return times and peaks."""
    began = time.perf_counter()
    codes = [a.start_share(source) for source, _ in pairs]
    until(partial(_scanned, a, len(pairs)), "the first scan", FIRST_SYNC_TIMEOUT_S, POLL_S)
    values: dict[str, float | list[float]] = {"index_s": time.perf_counter() - began}
    giver, taker = agent_pid(a), agent_pid(b)
    values["index_mb"] = memory(giver).peak
    forget_peak(giver)
    for (code, sharing), (_, target) in zip(codes, pairs, strict=True):
        b.accept(code, target, timeout_s=FIRST_SYNC_TIMEOUT_S)
        sharing.end()
    values["give_mb"] = memory(giver).peak
    values["take_mb"] = memory(taker).peak
    a.wait(FIRST_SYNC_TIMEOUT_S)
    return values


def _scanned(host: Host, count: int) -> bool:
    states = [folder.state for folder in folders(host)]
    return len(states) == count and "scanning" not in states


def _idle(pid: int, seconds: float) -> dict[str, float | list[float]]:
    time.sleep(min(QUIET_S, seconds))
    began, used = time.perf_counter(), cpu_s(pid)
    time.sleep(seconds)
    share = (cpu_s(pid) - used) / (time.perf_counter() - began)
    found = memory(pid)
    return {"rss_mb": found.rss, "pss_mb": found.pss, "cpu_percent": 100 * share}


def _restarted(host: Host) -> dict[str, float | list[float]]:
    """Stop the agent; return how long it takes to be in sync again, and what it read for it."""
    host.stop()
    began = time.perf_counter()
    host.start()
    until(partial(in_sync, host), "in sync after a restart", FIRST_SYNC_TIMEOUT_S, POLL_S)
    seconds = time.perf_counter() - began
    calls, read_mb = reads(agent_pid(host))
    return {"restart_s": seconds, "reads": calls, "read_mb": read_mb}


def syncthing(files: int, file_bytes: int) -> Callable[[Bench], Values]:
    """Return the same measurement, as far as it goes, of Syncthing."""

    def measure(bench: Bench) -> Values:
        source, target = _trees(bench, files, file_bytes)
        with bench.lan() as lan:
            program = Syncthing()
            program.start(Ground(lan, bench.fresh(), source, target))
            program.first_sync()
            one, other = program.a, program.b
            values: dict[str, float | list[float]] = {}
            values["give_mb"] = memory(one.process.pid).peak
            values["take_mb"] = memory(other.process.pid).peak
            values |= _idle(one.process.pid, bench.size(int(IDLE_S), 2))
            one.stop()
            began = time.perf_counter()
            one.start()
            until(
                lambda: one.connected() == 1 and one.up_to_date(bench.size(files, 2_000)),
                "Syncthing is in sync after a restart",
                FIRST_SYNC_TIMEOUT_S,
                POLL_S,
            )
            values["restart_s"] = time.perf_counter() - began
            values["reads"], values["read_mb"] = reads(one.process.pid)
        return values

    return measure


COLUMNS: Final = (
    Column("first scan s", "index_s"),
    Column("peak then MB", "index_mb", digits=0),
    Column("peak while giving MB", "give_mb", digits=0),
    Column("while taking MB", "take_mb", digits=0),
    Column("idle RSS MB", "rss_mb", digits=0),
    Column("PSS MB", "pss_mb", digits=0),
    Column("idle CPU %", "cpu_percent"),
    Column("status ms", "status_ms", digits=0),
    Column("restart s", "restart_s"),
    Column("reads for it", "reads", digits=0),
    Column("MB read", "read_mb", digits=1),
)
NOTES: Final = (
    "Both sides hold equal files from the start, so contents are hashed but do not travel. "
    "Giving and taking: the sharer's and the accepter's peak while the whole index goes over.",
    f"Idle over {IDLE_S:.0f} s, {QUIET_S:.0f} s after the last work. RSS counts libraries that "
    "the other agent on this machine shares in full, PSS by half.",
    "Restart: from `p2psync start` until the agent is connected and both sides are up to date; "
    "all its read calls until then, for program, libraries and index too. Fewer than files "
    "means that none was opened to read.",
)


def _case(name: str, files: int, file_bytes: int, rival: bool) -> Case:
    words = f"{files:,} files"
    subjects = [
        Subject(f"p2psync, {count} folder{'s' * (count > 1)}", agent(files, file_bytes, count))
        for count in (1, FOLDERS)
    ]
    if rival:
        subjects.insert(0, Subject("Syncthing", syncthing(files, file_bytes), rounds=1))
    return Case(
        name,
        f"an agent with {words} of {file_bytes} bytes: memory, idle CPU, status, restart",
        subjects,
        COLUMNS,
        big=files >= 1_000_000,
        free_gib=12 if files >= 1_000_000 else 3,
        notes=NOTES,
    )


CASES: Final = (
    _case("agent", 48_000, 4_096, rival=True),
    _case("agent-1m", 1_000_000, 16, rival=False),
)
