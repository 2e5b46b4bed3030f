"""Finding local changes and taking them into the index, unit by unit.

Promises: evidence-for-delete (a path counts as deleted only after a second look at the end of
the pass, in a parent that could be listed); new contents are taken in before deletes, so that
a move never looks like a loss; one bad path never stops the others; who looks ahead when asked
to (`Found.ahead`) has no unit that takes long.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby, islice

from p2psync.core import paths
from p2psync.core.ignore import Rules
from p2psync.core.index import Changes, Row, Signature
from p2psync.core.observed import Observed
from p2psync.core.problem import Problem, Reason
from p2psync.engine.exchange import DraftMaker
from p2psync.engine.renames import Renames
from p2psync.fs.hashing import observe, observe_many
from p2psync.fs.root import Root
from p2psync.fs.scan import (
    DirectoryScan,
    confirm_missing,
    scan_directory,
    scan_names,
    scan_tree,
)
from p2psync.fs.watch import Hint
from p2psync.store.index import Index

logger = logging.getLogger(__name__)

UNIT_PATHS = 512
UNIT_MOVED = 2_048  # what is not read and what is gone: some 100 ms
UNIT_LOOKS = 2_048  # at what is as its row says: 10-20 ms
UNIT_BYTES = 32 * 1024 * 1024

Moved = tuple[Row, Signature]
"""The row something has under the former name of its directory, and what was seen of it."""


@dataclass(frozen=True)
class Over:
    """A scan is over: what it looked at, and where it saw problems.

    listed: the directories that were listed to their end; None: everything there is. named:
    paths that were looked at by themselves. gone: what is certainly not there any more.
    """

    reported: Collection[bytes]
    listed: Collection[bytes] | None
    named: Collection[bytes]
    gone: Collection[bytes]

    def looked_at(self, path: bytes) -> bool:
        """Say whether a problem with this path would have been seen."""
        if self.listed is None or path in self.listed or paths.parent(path) in self.listed:
            return True
        if path in self.named:
            return True
        return any(above in self.gone for above in paths.ancestors(path))


@dataclass
class Found:
    """What one unit of a scan found.

    changed: the index changed. again: what to look at again soon, because it was still being
    written. problems: by path; None says that an earlier problem is gone. gone: what is
    certainly not there. over: set by the last unit. ahead: large files of the next unit;
    `Scanner.look_ahead`, from any thread, spares it the hashing.
    """

    changed: bool = False
    again: set[bytes] = field(default_factory=set)
    problems: dict[bytes, Problem | None] = field(default_factory=dict)
    gone: list[bytes] = field(default_factory=list)
    over: Over | None = None
    ahead: list[bytes] = field(default_factory=list)


class Scanner:
    """Compares the disk with the rows; every call of `next` on a scan is one unit of work."""

    def __init__(self, index: Index, root: Root, draft: DraftMaker) -> None:
        self._index = index
        self._root = root
        self._draft = draft
        self._ahead: dict[bytes, Observed | Problem | None] = {}
        self._suspects: list[set[bytes]] = []  # of every scan under way

    def look_ahead(self, path: bytes) -> None:
        """Hash a large file for the unit that will take it in; not in the worker thread."""
        self._ahead[path] = observe(self._root, path)

    def tree(self, start: bytes, rules: Rules) -> Iterator[Found]:
        """Scan a directory and everything below it; b"" is the root."""
        return self._run(self._trees([start], rules, Renames(self._root)), whole=not start)

    def hinted(self, hint: Hint, rules: Rules) -> Iterator[Found]:
        """Look where a hint points, and whole at directories that are not known yet."""
        return self._run(self._hinted(hint.narrowed(), rules), whole=False)

    def _hinted(self, hint: Hint, rules: Rules) -> Iterator[DirectoryScan]:
        """What has a name is looked at first: what is in a directory comes after it."""
        renames = Renames(self._root)
        for part in self._named(hint.paths | hint.trees, rules, renames):
            yield part
            fresh = [path for path in _new_below(part) if path not in hint.trees]
            yield from self._trees(fresh, rules, renames)
        yield from self._trees(hint.trees, rules, renames)
        for directory in hint.directories:
            rows = self._index.children(directory)
            part = scan_directory(self._root, directory, rows, rules)
            renames.note(part, rows)
            yield part
            yield from self._trees(_new_below(part), rules, renames)

    def _named(
        self, wanted: Collection[bytes], rules: Rules, renames: Renames
    ) -> Iterator[DirectoryScan]:
        """Look at just these; all of a unit's rows are asked for at once.

        What is as its row says costs 15 us: our own bulk apply comes back here.
        """
        pending = iter(sorted(wanted, key=lambda path: path.rpartition(b"/")))
        while some := list(islice(pending, UNIT_PATHS)):
            rows = self._index.rows(some)
            for directory, group in groupby(some, paths.parent):
                children = list(group)
                known = {paths.name(path): rows[path] for path in children if path in rows}
                names = list(map(paths.name, children))
                part = scan_names(self._root, directory, names, known, rules)
                renames.note(part, known)
                yield part

    def _trees(
        self, starts: Iterable[bytes], rules: Rules, renames: Renames
    ) -> Iterator[DirectoryScan]:
        rows: Mapping[bytes, Row] = {}

        def rows_of(directory: bytes) -> Mapping[bytes, Row]:
            nonlocal rows
            rows = self._index.children(directory)
            return rows

        def before(directory: bytes) -> Mapping[bytes, Row] | None:
            former = renames.former(directory)
            return None if former is None else self._index.children(former)

        for start in starts:
            for part in scan_tree(self._root, start, rows_of, rules, before):
                renames.note(part, rows)
                yield part

    def paths(self, wanted: Iterable[bytes]) -> Iterator[Found]:
        """Look at just these paths: what is needed, after a start (design 6.3)."""
        pending: list[bytes] = []
        for path in wanted:
            pending.append(path)
            if len(pending) == UNIT_PATHS:
                yield self._look(pending)
                pending = []
        if pending:
            yield self._look(pending)

    def _run(self, parts: Iterator[DirectoryScan], *, whole: bool) -> Iterator[Found]:
        """Take in what the parts say; the last unit only says what there was."""
        listed: set[bytes] = set()
        named: set[bytes] = set()
        reported: set[bytes] = set()
        gone: set[bytes] = set()
        for found in self._units(parts if whole else _noting(parts, listed, named)):
            reported.update(path for path, problem in found.problems.items() if problem)
            gone.update(found.gone)
            yield found
        yield Found(over=Over(reported, None if whole else listed, named, gone))

    def _units(self, parts: Iterator[DirectoryScan]) -> Iterator[Found]:
        pending: list[bytes] = []
        sizes: list[int] = []
        moved: dict[bytes, Moved] = {}
        problems: dict[bytes, Problem | None] = {}
        passed = 0
        with self._suspecting() as missing:
            for part in parts:
                passed += part.same
                if passed >= UNIT_LOOKS:  # others may have their turn
                    passed = 0
                    yield Found()
                problems.update({problem.path: problem for problem in part.problems})
                pending += part.changed
                sizes += part.sizes
                moved |= part.moved
                self._suspect(part, missing)
                while len(pending) >= UNIT_PATHS or len(moved) >= UNIT_MOVED:
                    count = portion(sizes)
                    some = dict(islice(moved.items(), UNIT_MOVED))
                    yield from self._announced(pending[:count])
                    # a directory together with what moved with it
                    yield self._take_in(pending[:count], (), problems, some)
                    pending, sizes, problems = pending[count:], sizes[count:], {}
                    moved = dict(islice(moved.items(), len(some), None))
            while (count := portion(sizes)) < len(pending):
                yield from self._announced(pending[:count])
                yield self._take_in(pending[:count], (), problems)
                pending, sizes, problems = pending[count:], sizes[count:], {}
            # children first: a directory never seems to be gone while it holds something
            gone = sorted(missing, reverse=True)
            yield from self._announced(pending)
            yield self._take_in(pending, gone[:UNIT_PATHS], problems, moved)
            for i in range(UNIT_PATHS, len(gone), UNIT_MOVED):
                yield self._take_in([], gone[i : i + UNIT_MOVED], {})

    def _suspect(self, part: DirectoryScan, missing: set[bytes]) -> None:
        """Note what is missing; what has rows below a directory that is gone is so too."""
        for path in part.missing:
            missing.add(path)
            missing.update(self._index.rows_below(path))
        for path in part.replaced:  # a directory that is a file or a link now
            missing.update(self._index.rows_below(path))

    @contextmanager
    def _suspecting(self) -> Iterator[set[bytes]]:
        """Collect what seems missing; see `settled`."""
        missing: set[bytes] = set()
        self._suspects.append(missing)
        try:
            yield missing
        finally:
            self._suspects = [each for each in self._suspects if each is not missing]

    @property
    def settled(self) -> bool:
        """False while a scan under way has found things missing and not told of it yet.

        What is new has been taken in by then: who is told only that would see half a move.
        """
        return not any(self._suspects)

    def _announced(self, unit: list[bytes]) -> Iterator[Found]:
        """Say which file makes a unit large, if one does: it is the last of it."""
        with suppress(OSError):
            seen = self._root.look(unit[-1]) if unit else None
            if seen is not None and seen.size > UNIT_BYTES:
                yield Found(ahead=unit[-1:])

    def _observe(
        self, wanted: list[bytes]
    ) -> Iterator[tuple[bytes, Observed | Problem | None]]:
        """Look at these paths, or take what was found ahead, if it stands there still."""
        ahead = {path: self._ahead.pop(path) for path in wanted if path in self._ahead}
        for path in wanted:
            seen = ahead.get(path)
            if isinstance(seen, Observed) and seen.signature is not None:
                with suppress(OSError):
                    if self._root.look(path) == seen.signature:
                        yield path, seen
                        continue
                yield path, Problem(path, Reason.CHANGING)  # hashed ahead again soon
            elif isinstance(seen, Problem):
                yield path, seen
            else:
                ahead.pop(path, None)
        yield from observe_many(self._root, [path for path in wanted if path not in ahead])

    def _look(self, wanted: list[bytes]) -> Found:
        """Take in exactly these paths; what is not there is missing only with evidence."""
        return self._take_in(wanted, wanted, {})

    def _take_in(
        self,
        changed: list[bytes],
        missing: Iterable[bytes],
        problems: dict[bytes, Problem | None],
        moved: Mapping[bytes, Moved] | None = None,
    ) -> Found:
        found = Found(problems=dict(problems))
        observed: dict[bytes, Observed | None] = {}
        for path, (row, signature) in (moved or {}).items():
            observed[path] = Observed(*row.place[:6], signature)
        vanished: list[bytes] = []
        for path, seen in self._observe(changed):
            if isinstance(seen, Problem):
                self._trouble(found, seen)
            elif seen is None:
                vanished.append(path)
            else:
                observed[path] = seen
                found.problems.setdefault(path, None)
        suspects = [
            path for path in dict.fromkeys([*missing, *vanished]) if path not in observed
        ]
        found.gone = self._confirmed(suspects)
        observed.update(dict.fromkeys(found.gone))
        if observed:
            found.changed = self._write(observed)
        return found

    def _trouble(self, found: Found, problem: Problem) -> None:
        if problem.reason is Reason.CHANGING:
            found.again.add(problem.path)
        found.problems[problem.path] = problem

    def _confirmed(self, suspects: list[bytes]) -> list[bytes]:
        """Those that are really gone, in a root that is still the same root."""
        if not suspects:
            return []
        gone = confirm_missing(self._root, suspects)
        if gone:
            self._root.check()
        return gone

    def _write(self, observed: dict[bytes, Observed | None]) -> bool:
        draft = self._draft()
        draft.load(observed)
        draft.scan(observed)
        changes = draft.finish()
        manifests = [
            (seen.content, seen.manifest)
            for seen in observed.values()
            if seen and seen.manifest
        ]
        with self._index.transaction(durable=False):
            self._index.write(changes)
            if manifests:
                self._index.put_manifests(manifests)
        return told_something(changes)


def portion(sizes: Sequence[int]) -> int:
    """Return how many of the first files, of these sizes in bytes, make one unit of hashing."""
    total = 0
    for count, size in enumerate(sizes[:UNIT_PATHS], start=1):
        total += size
        if total > UNIT_BYTES:
            return count
    return min(len(sizes), UNIT_PATHS)


def _noting(
    parts: Iterable[DirectoryScan], listed: set[bytes], named: set[bytes]
) -> Iterator[DirectoryScan]:
    """Pass the parts on; note what was looked at to its end."""
    for part in parts:
        if part.complete and part.names is None:
            listed.add(part.directory)
        elif part.complete and part.names is not None:
            named.update(paths.join(part.directory, name) for name in part.names)
        yield part


def _new_below(part: DirectoryScan) -> list[bytes]:
    """Return the subdirectories that are not those the rows know."""
    new = {*part.changed, *part.moved}
    return [path for path in part.subdirectories if path in new]


def told_something(changes: Changes) -> bool:
    """Say whether the changes are more than a fresher look at the disk."""
    return bool(changes.entries or changes.needed)
