"""One change, eight devices that wait for it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import trees
from benchmarks.bench import Bench
from benchmarks.case import Case, Column, Subject, Values
from benchmarks.probe import shows, until
from benchmarks.programs.p2psync import agent_host, in_sync
from benchmarks.programs.syncthing import started
from benchmarks.stats import p50, worst

HOSTS: Final = tuple("abcdefghi")
SAVES: Final = 20
SAVED_BYTES: Final = 4_096
PAUSE_S: Final = 0.3
SYNC_TIMEOUT_S: Final = 120.0
ARRIVAL_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05


def p2psync(bench: Bench) -> Values:
    """Nine agents, each connected with each."""
    place, sites = _sites(bench)
    with bench.lan(*HOSTS) as lan:
        hosts = [agent_host(lan, name, place, sites[name]) for name in HOSTS]
        for host in hosts:
            host.start()
        for other in hosts[1:]:
            code, sharing = hosts[0].start_share()
            other.accept(code, timeout_s=SYNC_TIMEOUT_S)
            sharing.end()
        for host in hosts:
            until(
                partial(in_sync, host, len(HOSTS) - 1),
                f"{host.name} is connected with all",
                SYNC_TIMEOUT_S,
                POLL_S,
            )
        return _saves(list(sites.values()), bench.size(SAVES, 2))


def syncthing(bench: Bench) -> Values:
    """Nine instances, each connected with each."""
    place, sites = _sites(bench)
    with bench.lan(*HOSTS) as lan:
        instances = started(lan, place, *HOSTS)
        ids = [each.id for each in instances]
        for each in instances:
            sites[each.host].mkdir(exist_ok=True)
            each.add_folder(sites[each.host], ids)
        files = trees.files_in(sites["a"])
        for each in instances:
            until(partial(each.up_to_date, files), "in sync", SYNC_TIMEOUT_S, POLL_S)
        return _saves(list(sites.values()), bench.size(SAVES // 2, 2))


def _sites(bench: Bench) -> tuple[Path, dict[str, Path]]:
    place = bench.fresh()
    sites = {name: place / f"folder-{name}" for name in HOSTS}
    trees.tiny_files(sites["a"], 1_000)
    return place, sites


def _saves(sites: list[Path], count: int) -> dict[str, list[float]]:
    """Save at the first site; return when the first and when the last other one shows it."""
    generator = random.Random(5)
    found: dict[str, list[float]] = {"first_ms": [], "last_ms": []}
    for number in range(count):
        time.sleep(PAUSE_S)
        name, content = Path("0000", f"{number:03}"), generator.randbytes(SAVED_BYTES)
        waiting = [_seen(site / name, content) for site in sites[1:]]
        began = time.perf_counter()
        (sites[0] / name).write_bytes(content)
        times = []
        while waiting:
            until(lambda: any(see() for see in waiting), "a save", ARRIVAL_TIMEOUT_S)  # noqa: B023
            still = [see for see in waiting if not see()]
            times += [(time.perf_counter() - began) * 1000] * (len(waiting) - len(still))
            waiting = still
        found["first_ms"].append(times[0])
        found["last_ms"].append(times[-1])
    return found


def _seen(path: Path, content: bytes) -> Callable[[], bool]:
    return partial(shows, path, content)


CASE: Final = Case(
    "fanout",
    "one save, until the first and the last of eight other devices show it",
    [Subject("Syncthing", syncthing, rounds=1), Subject("p2psync tls", p2psync)],
    [
        Column("last p50 ms", "last_ms", p50, 1),
        Column("worst ms", "last_ms", worst, 1),
        Column("first p50 ms", "first_ms", p50, 1),
    ],
    notes=("Nine hosts on this one machine, each connected with each.",),
)
