"""A killed process loses nothing it was told is durable, and leaves nothing half done."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from p2psync.errors import CorruptIndexError
from p2psync.store.home import Home
from p2psync.store.index import Index
from tests.support.build import entry

ROOT = pathlib.Path(__file__).parents[2]

CHILD = """
import os, pathlib, signal, sys
from p2psync.store.home import Home
from p2psync.store.index import Index
from tests.support.build import changes, entry, file_row

path = pathlib.Path(sys.argv[1])

def put(index, *names):
    rows = {name: file_row(name, "x") for name in names}
    index.write(changes(index.facts(), entries=dict.fromkeys(names, entry("x")), rows=rows))

def die():
    os.kill(os.getpid(), signal.SIGKILL)

"""


def killed(path: pathlib.Path, *lines: str) -> None:
    """Run a process that kills itself where it calls `die()`."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD + "\n".join(lines), str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_l01_killed_after_a_commit(path: pathlib.Path) -> None:
    """What `write` returned from is there."""
    killed(path, "index = Index.open(path, start=1)", "put(index, b'a', b'b')", "die()")

    index = Index.open(path, start=2)

    assert not index.fresh
    assert index.entries([b"a", b"b"]) == {b"a": entry("x"), b"b": entry("x")}
    assert index.totals() == (2, 20)
    assert index.facts().arrival == 2
    assert index.arrival_of(1, 2) == 2
    index.close()


@pytest.mark.slow
def test_l01_killed_inside_a_transaction(path: pathlib.Path) -> None:
    """What was under way has not happened, even where it was spilled to the disk."""
    killed(
        path,
        "index = Index.open(path, start=1)",
        "put(index, b'a')",
        "index._db.run('PRAGMA cache_size = 10')",
        "with index.transaction():",
        "    for n in range(3000):",
        "        put(index, b'half-%d' % n)",
        "    die()",
    )

    index = Index.open(path, start=2)

    assert list(index.rows_below(b"")) == list(index.live_below(b"")) == [b"a"]
    assert index.totals() == (1, 10)
    assert index.facts().arrival == 1
    index.close()


@pytest.mark.slow
def test_l09_killed_before_the_first_migration_ends(path: pathlib.Path) -> None:
    """A database that was only begun is begun again."""
    killed(
        path,
        "from p2psync.store.database import Database",
        "Database._script = lambda self, text: (",
        "    self._connection.executescript(text.replace('COMMIT;', '')), die())",
        "Index.open(path, start=1)",
    )

    index = Index.open(path, start=2)

    assert index.fresh
    assert index.facts().arrival == 0
    index.close()


@pytest.mark.slow
def test_m06_killed_and_the_log_deleted(path: pathlib.Path) -> None:
    """Without its log the index is an older one or put aside, never a mixture."""
    killed(
        path,
        "index = Index.open(path, start=1)",
        "put(index, b'a')",
        "index._db.run('PRAGMA wal_checkpoint(FULL)')",
        "for n in range(300):",
        "    put(index, b'later-%d' % n)",
        "die()",
    )
    path.with_name("index.db-wal").unlink()

    try:
        index = Index.open(path, start=2)
    except CorruptIndexError:
        index = Index.open(path, start=2)
        assert index.fresh
    else:
        assert list(index.rows_below(b"")) == list(index.live_below(b"")) == [b"a"]
        assert index.arrival_of(1, 99) == 1
    index.close()


@pytest.mark.slow
def test_guess_counts_though_the_agent_is_killed_at_once(tmp_path: pathlib.Path) -> None:
    """A guess is durable before its number is returned."""
    path = tmp_path / "agent.db"
    killed(
        path,
        "home = Home.open(path)",
        "home.new_code(b'code', 100)",
        "assert home.count_guess(b'code') == 1",
        "die()",
    )

    home = Home.open(path)

    assert home.count_guess(b"code") == 2
    home.close()
