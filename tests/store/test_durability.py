"""Durable-before-told: what has been told of was made durable, and in bulk that is cheap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.require import require

PROGRAM = """
import pathlib, sys
from p2psync.store.index import Index

index = Index.open(pathlib.Path(sys.argv[1]), start=1)
print("opened", flush=True)
for number in range(20):
    with index.transaction(durable=sys.argv[2] == "durable"):
        index.put("key", b"%d" % number)
print("written", index.unsettled, flush=True)
index.settle()
print("settled", index.unsettled, flush=True)
index.settle()
print("again", flush=True)
"""


def syncs_until(path: Path, how: str) -> dict[str, int]:
    """Run the program; return how many calls made something durable before each line of it."""
    trace = path / "trace"
    calls = "trace=fsync,fdatasync,write"
    argv = ["strace", "-f", "-s", "16", "-e", calls, "-o", str(trace)]
    argv += [sys.executable, "-c", PROGRAM, str(path / "index.db"), how]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    counts: dict[str, int] = {}
    count = 0
    for line in trace.read_text().splitlines():
        if "sync(" in line:
            count += 1
        for word in ("opened", "written", "settled", "again"):
            if f'write(1, "{word}' in line:
                counts[word] = count
    return counts


@pytest.mark.slow
def test_durable_before_told_transactions_are_made_durable_one_by_one_or_together(
    tmp_path: Path,
) -> None:
    """A durable transaction syncs by itself; of others none does before `settle`, then once."""
    require("strace")
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    each = syncs_until(tmp_path / "one", "durable")
    together = syncs_until(tmp_path / "other", "later")

    assert each["written"] - each["opened"] >= 20
    assert together["written"] == together["opened"]
    assert together["settled"] == together["written"] + 1
    assert together["again"] == together["settled"]
