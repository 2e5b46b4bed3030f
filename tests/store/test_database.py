"""A database that cannot be trusted is put aside; one that can is never lost."""

from __future__ import annotations

import os
import pathlib
import shutil
import sqlite3
import stat

import pytest

from p2psync.errors import CorruptIndexError, StoreError
from p2psync.store import database as module
from p2psync.store.database import Database
from p2psync.store.index import Index
from tests.support.build import changes, entry


def beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(path.name + suffix)


def filled(path: pathlib.Path, start: int = 1) -> Index:
    index = Index.open(path, start=start)
    paths = [b"directory/file-%04d" % number for number in range(500)]
    index.write(changes(index.facts(), entries=dict.fromkeys(paths, entry("text"))))
    return index


def assert_put_aside_then_fresh(path: pathlib.Path) -> None:
    with pytest.raises(CorruptIndexError, match=r"put aside as index\.db\.corrupt-1"):
        Index.open(path, start=8)

    assert beside(path, ".corrupt-1").exists()
    index = Index.open(path, start=9)
    assert index.fresh
    assert index.facts().arrival == 0
    index.close()


def test_what_was_written_is_there_after_a_clean_end(path: pathlib.Path) -> None:
    """A closed index opens as it was, and is not fresh."""
    index = filled(path)
    assert index.fresh
    index.close()

    index = Index.open(path, start=2)

    assert not index.fresh
    assert index.facts().arrival == 500
    index.close()
    assert not beside(path, "-wal").exists()


def test_the_file_belongs_to_its_owner_alone(path: pathlib.Path) -> None:
    """Nobody else may read the database or its log."""
    index = filled(path)

    for suffix in ("", "-wal"):
        assert stat.S_IMODE(beside(path, suffix).stat().st_mode) == 0o600
    index.close()


def test_m06_wrong_header(path: pathlib.Path) -> None:
    """A file that is no database at all is put aside."""
    filled(path).close()
    with path.open("r+b") as file:
        file.write(b"certainly not SQLite")

    assert_put_aside_then_fresh(path)


def test_m06_garbage_from_the_start(path: pathlib.Path) -> None:
    """A file of noise is put aside, not overwritten."""
    path.write_bytes(b"\x5a" * 10_000)

    assert_put_aside_then_fresh(path)

    assert beside(path, ".corrupt-1").read_bytes() == b"\x5a" * 10_000


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_m06_truncated(path: pathlib.Path, share: float) -> None:
    """A database that lost its end is put aside."""
    filled(path).close()
    os.truncate(path, int(path.stat().st_size * share) // 4096 * 4096)

    assert_put_aside_then_fresh(path)


def test_m06_corrupt_page(path: pathlib.Path) -> None:
    """A page of noise in the middle is found at the opening."""
    filled(path).close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(size // 4096 // 2, size // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))

    assert_put_aside_then_fresh(path)


def test_m06_log_of_another_database(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A foreign log, which SQLite plays back without a question, is not believed."""
    filled(path).close()
    other = Index.open(tmp_path / "other.db", start=1)
    for number in range(3):
        other.write(changes(other.facts(), entries={b"foreign%d" % number: entry("x")}))
    shutil.copy(tmp_path / "other.db-wal", beside(path, "-wal"))
    other.close()

    assert_put_aside_then_fresh(path)


def test_m06_hot_journal_of_another_database(
    path: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A journal that lies beside the database is not played back: we never make one."""
    filled(path).close()
    other = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN")
    other.executemany("INSERT INTO t VALUES (?)", [(os.urandom(5000),) for _ in range(50)])
    other.execute("PRAGMA cache_spill = 1")
    journal = beside(path, "-journal")
    journal.write_bytes((tmp_path / "other.db-journal").read_bytes().ljust(8192, b"\xd9"))
    other.close()

    index = Index.open(path, start=3)

    assert index.facts().arrival == 500
    assert not journal.exists()
    index.close()


def test_m01_log_without_a_database_is_not_played_back(path: pathlib.Path) -> None:
    """Deleting the database file gives an empty one, whatever lies beside it."""
    index = filled(path)
    log = beside(path, "-wal").read_bytes()
    index.close()
    path.unlink()
    beside(path, "-wal").write_bytes(log)

    index = Index.open(path, start=2)

    assert index.fresh
    assert index.facts().arrival == 0
    index.close()


def test_a_database_of_another_program_is_put_aside(path: pathlib.Path) -> None:
    """We do not add our tables to somebody else's database."""
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 1")
    other.execute("CREATE TABLE theirs (x)")
    other.close()

    assert_put_aside_then_fresh(path)


def test_damage_met_in_use_puts_aside_at_the_next_opening(path: pathlib.Path) -> None:
    """A flipped bit inside a body, which SQLite cannot see, does not make a crash loop."""
    filled(path).close()
    raw = sqlite3.connect(path)
    raw.execute("UPDATE entries SET body = x'c1' WHERE arrival = 7")
    raw.commit()
    raw.close()
    index = Index.open(path, start=2)

    with pytest.raises(CorruptIndexError):
        index.entries([b"directory/file-0006"])

    index.close()
    assert_put_aside_then_fresh(path)


def test_only_the_newest_damaged_ones_are_kept(path: pathlib.Path) -> None:
    """A bad disk does not fill up with damaged databases."""
    for start in range(1, 6):
        path.write_bytes(b"noise" * 1000)
        with pytest.raises(CorruptIndexError):
            Index.open(path, start=start)

    kept = sorted(found.name for found in path.parent.glob("*.corrupt-*"))
    assert kept == ["index.db.corrupt-3", "index.db.corrupt-4", "index.db.corrupt-5"]


def test_l10_newer_schema_is_refused_and_untouched(path: pathlib.Path) -> None:
    """After a downgrade the program says so, and the newer one finds everything again."""
    filled(path).close()
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA user_version = 99")
    raw.close()

    with pytest.raises(StoreError, match="newer version") as caught:
        Index.open(path, start=2)

    assert not isinstance(caught.value, CorruptIndexError)
    assert not list(path.parent.glob("*.corrupt-*"))


def test_l09_migration_that_breaks_leaves_nothing(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration happens whole or not at all; the next opening does it again."""
    broken = ["CREATE TABLE a (x) STRICT;", "CREATE TABLE b (x INT) STRICT; SELECT nonsense;"]
    good = ["CREATE TABLE a (x INT) STRICT;", "CREATE TABLE b (x INT) STRICT;"]
    monkeypatch.setattr(module, "_migrations", lambda schema: [good[0], broken[1]])
    with pytest.raises(StoreError):
        Database(path, "any")

    monkeypatch.setattr(module, "_migrations", lambda schema: good)
    database = Database(path, "any")

    assert database.one("PRAGMA user_version") == (2,)
    assert database.one("SELECT count(*) FROM b") == (0,)
    database.close()


def test_migrations_run_in_order_on_an_older_database(
    path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older database gets what it lacks, once, and keeps what it has."""
    scripts = ["CREATE TABLE a (x INT) STRICT; INSERT INTO a VALUES (1);"]
    monkeypatch.setattr(module, "_migrations", lambda schema: scripts)
    Database(path, "any").close()
    scripts.append("UPDATE a SET x = x + 1;")

    for _ in range(2):
        database = Database(path, "any")
        assert not database.fresh
        assert database.all("SELECT x FROM a") == [(2,)]
        database.close()


def test_m07_a_place_that_cannot_be_written(tmp_path: pathlib.Path) -> None:
    """Without its directory the index cannot be opened, and that is not damage."""
    with pytest.raises(StoreError) as caught:
        Index.open(tmp_path / "absent" / "index.db", start=1)

    assert not isinstance(caught.value, CorruptIndexError)


def test_m07_full_disk_undoes_the_transaction(index: Index) -> None:
    """When the database can grow no more, what did not fit has not happened."""
    index.write(changes(index.facts(), entries={b"small": entry("x")}))
    (pages,) = index._db.one("PRAGMA page_count") or (0,)
    index._db.run(f"PRAGMA max_page_count = {pages + 2}")
    before = index.facts(), index.digest()

    many = {b"path-%05d" % number: entry("x") for number in range(5_000)}
    with pytest.raises(StoreError):
        index.write(changes(index.facts(), entries=many))

    assert (index.facts(), index.digest()) == before
    index._db.run("PRAGMA max_page_count = 1000000")
    index.write(changes(index.facts(), entries=many))
    assert len(index.entries(list(many))) == 5_000


def test_a_second_process_is_refused(path: pathlib.Path) -> None:
    """While somebody writes, another connection fails with a sentence, not with a mixture."""
    index = filled(path)
    with index.transaction():
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
    index.close()
