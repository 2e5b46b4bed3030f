"""What every compared program can do: bring one host's folder to the other and keep it so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.lan import BenchLan

FIRST_SYNC_TIMEOUT_S = 1_800.0


@dataclass(frozen=True)
class Ground:
    """Where a program works: from `source` on host "a" to `target` on host "b".

    scratch: an empty directory for whatever it needs besides.
    """

    lan: BenchLan
    scratch: Path
    source: Path
    target: Path


class Program(Protocol):
    """One of the compared; made anew for every measurement."""

    @property
    def name(self) -> str:
        """What it is called in tables."""

    def start(self, ground: Ground) -> None:
        """Do all that comes before the moment when a person begins a first sync."""

    def first_sync(self) -> None:
        """Bring everything from source to target; return when it is there and durable."""

    def settle(self) -> None:
        """Return when there is nothing left to do."""

    def update(self, arrived: Callable[[], bool], timeout_s: float) -> None:
        """Bring over what was changed in source a moment ago; return when it arrived."""
