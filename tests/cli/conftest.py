"""Runs the command line as its users do: as a process, with an agent's socket behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from p2psync.config.places import Places
from tests.support.engine import Engine, Running

CHECKOUT = Path(__file__).resolve().parent.parent.parent
GOLDEN = CHECKOUT / "tests" / "golden" / "cli"


@dataclass
class Done:
    """What a command did."""

    exit: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Shell:
    """Types commands for one home."""

    places: Places
    directory: Path

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("P2PSYNC_")}
        home = {"P2PSYNC_HOME": str(self.places.home), "PYTHONPATH": str(CHECKOUT)}
        return kept | home | {"PYTHONWARNINGS": "error"} | more

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-P", "-m", "p2psync", *args]

    def popen(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*args),
            env=self.environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def __call__(self, *args: str, stdin: str = "", **environ: str) -> Done:
        done = subprocess.run(
            self.argv(*args),
            env=self.environment(**environ),
            cwd=self.directory,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(Places(tmp_path / "home"), tmp_path)


@pytest.fixture
def engine(shell: Shell) -> Iterator[Engine]:
    """The engine of an agent that runs for the shell's home."""
    with Running(shell.places) as running:
        yield running.engine


def check_golden(name: str, text: str) -> None:
    """Compare with the committed text; UPDATE_GOLDEN=1 in the environment writes it instead."""
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()
