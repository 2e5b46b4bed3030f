"""What a replica owns: its index, its root and its ignore rules, opened and kept in order.

Synchronous, and run in the replica's worker thread. Promises: evidence-for-delete across every
discontinuity (design 4.9): a new or rebuilt index, another root, other ignore rules put the
replica into safe mode or let rows go, so that missing means fetch, never deleted.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2psync.core.draft import Draft
from p2psync.core.ignore import NOTHING, Rules
from p2psync.core.index import Want
from p2psync.core.problem import Problem
from p2psync.engine import memory
from p2psync.engine.apply import Applied, Applier, not_kept
from p2psync.engine.moves import DirectoryMover
from p2psync.engine.scanning import Found, Scanner
from p2psync.errors import RootTrouble
from p2psync.fs.partial import Partial
from p2psync.fs.root import Root
from p2psync.fs.scan import RULES_NAME, load_rules
from p2psync.fs.staging import Prepared
from p2psync.store.home import FolderRecord
from p2psync.store.index import CorruptIndexError, Index

logger = logging.getLogger(__name__)

COLLECT_AT_ONCE: Final = 1_000
REVIEW_AT_ONCE: Final = 1_000
LOOK_AT_ONCE: Final = 4_096
HISTORY_NS: Final = 30 * 86_400 * 10**9


class Stock:
    """The index, the root and the rules of one replica.

    Args:
        record: where the root is and what it belongs to.
        directory: where the index databases live.
        joining: the folder has other members: a fresh index starts in safe mode.

    Raises:
        StoreError: the index cannot be used.
    """

    index: Index
    root: Root
    applier: Applier
    mover: DirectoryMover
    scanner: Scanner

    def __init__(self, record: FolderRecord, directory: Path, *, joining: bool) -> None:
        self.rules: Rules = NOTHING
        self.safe = False
        self.received: dict[bytes, int] = {}  # bytes assembled of large contents under way
        self._record = record
        self._database = index_file(record, directory)
        start = secrets.randbits(63) | 1
        try:
            self.index = Index.open(self._database, start=start)
        except CorruptIndexError as error:
            logger.error("%s; starting a new index in safe mode", error)
            self.index = Index.open(self._database, start=start)
        self.safe = self.index.get("safe") == b"1"
        if self.index.fresh and joining:
            self._enter_safe_mode()

    def close(self) -> None:
        """Close both."""
        self.index.close()
        self.close_root()

    def close_root(self) -> None:
        """Close the root, if it is open."""
        with suppress(AttributeError):
            self.root.close()
            del self.root

    # ------------------------------------------------------------------ the root

    def open_root(self) -> Iterator[Found]:
        """Open the root and put it in order; yields what a look at the needed paths found.

        Paths that were needed are looked at before the first entry is taken in: what a crash
        left between putting in place and committing is recognised as ours (design 6.3).

        Raises:
            RootTrouble: it is not there, not ours, or its ignore rules cannot be read.
        """
        record = self._record
        self.close_root()
        self.root = Root.open(record.root, record.replica, bytes(record.folder))
        known, now = self.index.get("root"), repr(self.root.identity).encode()
        if known is not None and known != now:
            logger.warning("the root is another one than before: missing files are fetched")
            self._forget_rows(list(self.index.rows_below(b"")))
            self._enter_safe_mode()
        self.index.put("root", now)
        for recovered in self.root.recover():
            logger.warning("a crash had left %s", recovered)
        self.load_rules()
        self.applier = Applier(self.index, self.root, self.draft)
        self.mover = DirectoryMover(self.index, self.root, self.draft)
        self.scanner = Scanner(self.index, self.root, self.draft)
        if not self.safe:
            if self.index.needed(limit=1):
                self._sync()  # what is recognised as ours has to be durable
            yield from self.scanner.paths(self._needed())

    def _needed(self) -> Iterator[bytes]:
        """Yield every needed path; what is recognised meanwhile is needed no more."""
        last = b""
        while needed := self.index.needed(limit=LOOK_AT_ONCE, after=last):
            last = needed[-1][0]
            yield from (path for path, _ in needed)

    def _sync(self) -> None:
        try:
            self.root.sync()
        except OSError as error:
            raise not_kept(error) from error

    def draft(self) -> Draft:
        """Return a draft over the index with the rules and a spare author id."""
        return Draft(
            self.index, spare_author=secrets.randbits(63) | 1, ignored=self.rules.ignored
        )

    def settled(self) -> bool:
        """Say whether no scan is in the middle of what may be a move; see `Scanner.settled`."""
        scanner: Scanner | None = getattr(self, "scanner", None)
        return scanner is None or scanner.settled

    def need(self) -> tuple[int, int]:
        """Return what is lacking here, files and bytes; in safe mode at least one file.

        Before what is here has been adopted nobody can say that nothing is lacking.
        """
        files, size = self.lacking()
        return (max(files, 1), size) if self.safe else (files, size)

    def lacking(self) -> tuple[int, int]:
        """Return how many paths are not as the view wants them, and the bytes still to come."""
        files, size = self.index.needed_totals()
        return files, max(0, size - sum(list(self.received.values())))

    def apply(
        self,
        wants: Mapping[bytes, Want],
        staged: Mapping[bytes, Prepared],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply one batch; rules that came with it hold from the same moment on.

        Raises:
            RootTrouble: the root is not there, or the new rules make no sense.
        """
        applied = self.applier.apply(wants, staged, large)
        if RULES_NAME in applied.done:
            self.load_rules()
        return applied

    # ------------------------------------------------------------------ discontinuities

    def _enter_safe_mode(self) -> None:
        self.index.put("safe", b"1")
        self.safe = True

    def leave_safe_mode(self) -> None:
        """What is here has been adopted: from now on missing may mean deleted."""
        self.index.put("safe", b"0")
        self.safe = False

    def load_rules(self) -> None:
        """Read the ignore rules.

        Raises:
            RootTrouble: they cannot be read or make no sense: never "ignore nothing".
        """
        rules = load_rules(self.root)
        if isinstance(rules, Problem):
            raise RootTrouble("ignore rules", f".p2psyncignore {rules.reason}: {rules.detail}")
        changed = self.index.get("rules") != rules.digest
        self.rules = rules
        if changed:
            self._review_all_paths()
            self.index.put("rules", rules.digest)

    def _review_all_paths(self) -> None:
        """What is ignored now loses its row without a claim; needs are chosen anew."""
        after = b""
        while batch := self.index.paths(after=after, limit=REVIEW_AT_ONCE):
            draft = self.draft()
            draft.load(batch)
            for path in batch:
                if self.rules.ignored(path):
                    draft.forget_row(path)
                draft.touch(path)
            self.index.write(draft.finish())
            after = batch[-1]

    def _forget_rows(self, gone: Iterable[bytes]) -> None:
        """Let rows go without any claim: missing means fetch, not deleted."""
        listed = list(gone)
        for start in range(0, len(listed), REVIEW_AT_ONCE):
            batch = listed[start : start + REVIEW_AT_ONCE]
            draft = self.draft()
            draft.load(batch)
            for path in batch:
                draft.forget_row(path)
            self.index.write(draft.finish())

    # ------------------------------------------------------------------ old things

    def collect(self, members: Collection[bytes]) -> None:
        """Collect tombstones every other member is known to have taken in (design 4.7)."""
        known = self.index.peers_known()
        if not members or any(member not in known for member in members):
            return
        candidates = self.index.tombstones(limit=COLLECT_AT_ONCE)
        if candidates:
            draft = self.draft()
            draft.load(candidates)
            draft.collect([known[member] for member in members], candidates)
            changes = draft.finish()
            if changes.entries:
                self.index.write(changes)

    def rest(self) -> None:
        """Keep no more in memory than an idle replica needs; what is wanted is read again."""
        self.index.shrink()
        memory.give_back()

    def prune(self) -> None:
        """Remove what was displaced more than thirty days ago, and what nobody needs any more.

        That is manifests, and large files that were assembled in part.
        """
        gone = self.root.prune_history(time.time_ns() - HISTORY_NS)
        if gone:
            self.index.remove_history(gone)
        self.index.prune_manifests()
        if not self.safe:  # before peers have told what there should be nothing is needed
            for content in self.index.unwanted(self.root.partials()):
                with suppress(OSError):  # it is being assembled, or another time
                    self.root.partial(content, 0).remove()


def index_file(record: FolderRecord, directory: Path) -> Path:
    """Return where the index of a replica is."""
    return directory / f"{record.replica.hex()}.db"


def remove_index(record: FolderRecord, directory: Path) -> None:
    """Remove the index of a replica that has ended; nothing of the folder is touched."""
    for file in directory.glob(f"{record.replica.hex()}.db*"):
        file.unlink(missing_ok=True)
