"""One SQLite file: opened safely, migrated, checked, durable at every commit.

What it relies on: WAL with `synchronous=FULL` makes a transaction durable before `COMMIT`
returns, and a crash at any point leaves the last committed state. What it does not rely on:
that the medium keeps what it was given. A database that SQLite, or whoever decodes what is in
it, finds damaged is renamed aside (`NAME.corrupt-N`, with its log, so that it can still be
looked into) and `CorruptIndexError` is raised; the next opening starts with an empty one.

A full check reads the whole file. It is made after an unclean end, which is when damage
happens, and always while the file is small; otherwise damage shows when it is met. Then a
note is left beside the file, and the next opening puts it aside without asking SQLite, which
cannot see a flipped bit inside a value. Whether the end was clean is said by the application
id in the header, not by the log alone: somebody may have deleted the log.
"""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from p2psync.errors import CorruptIndexError, StoreError
from p2psync.store.files import create, log_of, note_of, put_aside, remove_strangers
from p2psync.store.medium import network_of

Record = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]
T = TypeVar("T")

AT_REST: Final = 0x70327079  # "p2py": the application id after `close`
IN_USE: Final = 0x70327075  # "p2pu"
CHECK_ALWAYS_BYTES: Final = 16 * 1024 * 1024  # up to here a full check costs milliseconds
BUSY_TIMEOUT_S: Final = 5.0
LIST_SIZES: Final = (1, 8, 64, 512)
"""Few lengths: few statements to keep prepared. One of 512 keeps 117 kB; one of 2,048 kept 434,
in each replica for ever, and found a path no faster (1.2 us)."""

PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA fullfsync = ON",  # macOS: a plain fsync there does not reach the medium
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA secure_delete = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cache_size = -16384",  # KiB
    "PRAGMA wal_autocheckpoint = 4096",  # pages: 16 MiB
    "PRAGMA journal_size_limit = 67108864",
)

DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_MARKS: Final = {size: f"({','.join('?' * size)})" for size in LIST_SIZES}


class Database:
    """A connection to one database; used by one thread at a time.

    Args:
        path: the file; created, for its owner alone, when there is none.
        schema: the directory of migrations below `store/schema`.

    Raises:
        CorruptIndexError: it was damaged and has been put aside.
        StoreError: it cannot be opened, or a newer version of the program made it.
    """

    def __init__(self, path: pathlib.Path, schema: str) -> None:
        self.path = path
        self.fresh = False
        self._inside = False
        self._doomed = False
        self.unsettled = False
        """A power cut now could undo the latest transactions."""

        self._on_rollback: list[Callable[[], None]] = []
        if network := network_of(path.parent):
            raise StoreError(f"{path}: is on a network ({network}); it must be on a local disk")
        if note_of(path).exists():
            put_aside(self.path, "damage was met while it was in use")
        try:
            remove_strangers(path)
            had_log = log_of(path).exists()
            if not path.exists():
                create(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}") from error
        self._connection = self._connect()
        try:
            self._prepare(schema, had_log)
        except CorruptIndexError as error:
            self._connection.close()
            put_aside(self.path, str(error))
        except BaseException:
            self._connection.close()
            raise

    # ------------------------------------------------------------------ opening

    def _connect(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(
                self.path,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,  # we say BEGIN ourselves
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}") from error

    def _prepare(self, schema: str, had_log: bool) -> None:
        (version,) = self.one("PRAGMA user_version") or (0,)
        (application,) = self.one("PRAGMA application_id") or (0,)
        if version and application not in (AT_REST, IN_USE):
            raise CorruptIndexError("it is the database of another program")
        (mode,) = self.one("PRAGMA journal_mode = WAL") or ("",)
        if mode != "wal":
            raise StoreError(f"{self.path}: this filesystem cannot hold a database log")
        for pragma in PRAGMAS:
            self.run(pragma)
        if had_log or application == IN_USE or self._is_small():
            (verdict,) = self.one("PRAGMA quick_check(1)") or ("no answer",)
            if verdict != "ok":
                raise CorruptIndexError(str(verdict))
        self._migrate(schema, version)
        self.run(f"PRAGMA application_id = {IN_USE}")

    def _is_small(self) -> bool:
        return self.path.stat().st_size <= CHECK_ALWAYS_BYTES

    def _migrate(self, schema: str, version: int) -> None:
        """Run the numbered migrations the file has not seen, each in its own transaction."""
        migrations = _migrations(schema)
        if version > len(migrations):
            raise StoreError(
                f"{self.path}: made by a newer version of p2psync; update this one"
            )
        for number, script in enumerate(migrations[version:], start=version + 1):
            self._script(
                f"BEGIN IMMEDIATE;\n{script}\n;PRAGMA application_id = {IN_USE};"
                f"PRAGMA user_version = {number};\nCOMMIT;"
            )
        self.fresh = version == 0

    def _script(self, text: str) -> None:
        try:
            self._connection.executescript(text)
        except sqlite3.Error as error:
            self._roll_back()
            raise self._failed(error) from error

    def reject(self, why: str) -> NoReturn:
        """Close the database and put it aside: what is in it does not belong here."""
        self._connection.close()
        put_aside(self.path, why)

    def close(self) -> None:
        """Close the file; the log is folded in, so the next opening finds a clean end."""
        try:
            with contextlib.suppress(StoreError):  # a full disk: the next opening checks
                self.run(f"PRAGMA application_id = {AT_REST}")
            self._connection.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    # ------------------------------------------------------------------ transactions

    def on_rollback(self, action: Callable[[], None]) -> None:
        """Call `action` after every rollback: what is cached of the database is void then."""
        self._on_rollback.append(action)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """Make what happens inside one durable step; inside another one, join it.

        durable: false leaves it to the next durable transaction, or to `settle`, to make this
        one durable too: the log only grows, so a power cut takes the latest ones or none, and
        never one from the middle. For what nobody has been told yet.

        Any exception undoes all of it, the enclosing transaction included, even where
        somebody between the two catches it.
        """
        if self._inside:
            try:
                yield
            except BaseException:
                self._doomed = True
                raise
            return
        if not durable:
            self.run("PRAGMA synchronous = NORMAL")
        self.run("BEGIN IMMEDIATE")
        self._inside, self._doomed = True, False
        try:
            yield
            if self._doomed:
                raise StoreError("a part of this transaction failed: nothing of it was done")
            self.run("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._inside = False
            self.unsettled = not durable
            if not durable:
                self.run("PRAGMA synchronous = FULL")

    def settle(self) -> None:
        """Make durable what transactions before left to this; costs nothing if none did."""
        if self.unsettled:
            # says nothing new, and is the smallest durable transaction there is
            self.run(f"PRAGMA application_id = {IN_USE}")
            self.unsettled = False

    def _roll_back(self) -> None:
        # SQLite has undone it already after some errors (disk full, I/O)
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
        for action in self._on_rollback:
            action()

    # ------------------------------------------------------------------ statements

    @property
    def written(self) -> int:
        """How many records were written or deleted since it was opened."""
        return self._connection.total_changes

    def run(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Execute one statement; return how many rows it changed."""
        try:
            return self._connection.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def many(self, sql: str, records: Iterable[Sequence[object]]) -> None:
        """Execute one statement for each of the records of parameters."""
        try:
            self._connection.executemany(sql, records)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def one(self, sql: str, parameters: Sequence[object] = ()) -> Record | None:
        """Return the first record of the answer, or None."""
        try:
            cursor = self._connection.execute(sql, parameters)
            record: Record | None = cursor.fetchone()
            cursor.close()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        return record

    def all(self, sql: str, parameters: Parameters = ()) -> list[Record]:
        """Return every record of the answer; the statement bounds how many."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def all_in(self, sql: str, keys: Iterable[object]) -> list[Record]:
        """Return the answers of a statement whose `(?*)` stands for a list of the keys.

        The list is cut into a few fixed lengths, the last one filled up with its last key.
        """
        keys, records, at = list(keys), [], 0
        while at < len(keys):
            left = len(keys) - at
            size = next((size for size in LIST_SIZES if size >= left), LIST_SIZES[-1])
            part = keys[at : at + size]
            part += [part[-1]] * (size - len(part))
            records += self.all(sql.replace("(?*)", _MARKS[size]), part)
            at += size
        return records

    def shrink(self) -> None:
        """Let go of the pages kept in memory; they are read again when they are asked for."""
        self.run("PRAGMA shrink_memory")

    # ------------------------------------------------------------------ trouble

    def decoded(self, decode: Callable[[bytes], T], body: bytes) -> T:
        """Return `decode(body)` of a stored body; one that cannot be read is damage."""
        try:
            return decode(body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self.damaged(str(error)) from error

    def damaged(self, why: str) -> CorruptIndexError:
        """Note that this database must be put aside; return the exception to raise."""
        with contextlib.suppress(OSError):
            note_of(self.path).touch()
        return CorruptIndexError(f"{self.path}: {why}")

    def _failed(self, error: sqlite3.Error) -> StoreError:
        # the low byte is the primary code; errors of Python's own module have none
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in DAMAGE:
            return self.damaged(str(error))
        return StoreError(f"{self.path}: {error}")


def _migrations(schema: str) -> list[str]:
    """Return the scripts of a schema in order."""
    directory = resources.files("p2psync.store") / "schema" / schema
    scripts = [item for item in directory.iterdir() if item.name.endswith(".sql")]
    return [script.read_text("utf-8") for script in sorted(scripts, key=lambda s: s.name)]
