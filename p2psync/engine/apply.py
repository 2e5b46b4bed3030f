"""Making the disk look like the view, a batch of paths at a time (design 4.8 and 6).

A batch is: find where each content can be had, plan, prepare everything in staging, make it
durable in one go, put in place step by step and look at what was displaced, make the
directories durable, commit the rows in one transaction. Promises: durable-before-told,
no-blind-destroy (a step whose place is not as its row says does nothing and is scanned),
isolation (a failed step fails what builds on it, nothing else).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from p2psync.core import paths
from p2psync.core.draft import Draft
from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Want
from p2psync.core.plan import (
    Create,
    MakeDirectory,
    Move,
    PutAside,
    Remove,
    RemoveDirectory,
    Replace,
    SetMetadata,
    Step,
    plan,
)
from p2psync.core.problem import Problem
from p2psync.engine.exchange import DraftMaker
from p2psync.fs.partial import Partial
from p2psync.fs.root import Root
from p2psync.fs.staging import Prepared
from p2psync.store.index import Index

logger = logging.getLogger(__name__)


@dataclass
class Applied:
    """What one batch did.

    done: paths that show now what the view wants. rescan: paths whose disk was not as the
    index believed. absent: contents wanted that are nowhere on this device.
    """

    done: list[bytes] = field(default_factory=list)
    rescan: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    absent: dict[bytes, int] = field(default_factory=dict)


class Applier:
    """Applies batches to one replica; synchronous, run in its worker thread."""

    def __init__(self, index: Index, root: Root, draft: DraftMaker) -> None:
        self._index = index
        self._root = root
        self._draft = draft

    def apply(
        self,
        wants: Mapping[bytes, Want],
        data: Mapping[bytes, bytes],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply these paths as far as their contents are at hand.

        Args:
            wants: paths with what the view wanted there when they were chosen; what it wants
                now is looked up again.
            data: small contents that were fetched, by content.
            large: large contents assembled in staging, by content, each for one path.
        """
        batch = _Batch(self._index, self._root, self._draft(), data, large)
        batch.choose(wants)
        batch.prepare()
        batch.carry_out()
        return batch.commit()


class _Batch:
    """One batch under way."""

    def __init__(
        self,
        index: Index,
        root: Root,
        draft: Draft,
        data: Mapping[bytes, bytes],
        large: Mapping[bytes, Partial],
    ) -> None:
        self._index = index
        self._root = root
        self._draft = draft
        self._data = data
        self._large = large
        self._local: dict[bytes, tuple[bytes, Row] | bytes | None] = {}
        self._steps: list[Step] = []
        self._prepared: dict[bytes, Prepared] = {}
        self._aside: dict[bytes, bytes] = {}
        self._failed: set[bytes] = set()
        self._history: list[tuple[bytes, bytes, Place, str]] = []
        self._touched: set[bytes] = set()
        self.result = Applied()

    # ------------------------------------------------------------------ choose

    def choose(self, wants: Iterable[bytes]) -> None:
        """Look up what the view wants at these paths and above them now; plan the steps."""
        chosen = dict.fromkeys(wants)
        for path in list(chosen):
            chosen.update(dict.fromkeys(paths.ancestors(path)))
        self._draft.load(chosen)
        current: dict[bytes, Want] = {}
        for path in chosen:
            place, row = self._draft.want(path), self._draft.row(path)
            if place != (row.place if row else None):
                current[path] = Want(place)
        self._steps = plan(current, self._draft, self._at_hand)

    def _at_hand(self, content: bytes) -> bool:
        if content in self._data or content in self._large:
            return True
        if content not in self._local:
            self._local[content] = self._find(content)
        return self._local[content] is not None

    def _find(self, content: bytes) -> tuple[bytes, Row] | bytes | None:
        """Where a content stands on this disk: a path with its row, or a name in history."""
        for path, row in self._index.rows_with_content(content):
            if row.signature and self._looks_like(path, row):
                return path, row
        return next(iter(self._index.history_with_content(content)), None)

    def _looks_like(self, path: bytes, row: Row) -> bool:
        try:
            return self._root.look(path) == row.signature
        except OSError:
            return False

    # ------------------------------------------------------------------ prepare

    def prepare(self) -> None:
        """Assemble in staging what the steps will put in place; make it durable."""
        for step in self._steps:
            if isinstance(step, PutAside):
                self._keep(step.path, self._root.prepare_aside(step.path, step.row))
                self._aside[step.row.place.content] = step.path
        for step in self._steps:
            if isinstance(step, Create | Replace) and not self._comes_from_aside(step):
                self._keep(step.path, self._prepare(step.place))
        if len(self._prepared) == 1:
            self._root.sync_file(next(iter(self._prepared.values())))
        elif self._prepared:
            self._root.sync()

    def _comes_from_aside(self, step: Create | Replace) -> bool:
        return step.place.kind is Kind.FILE and step.place.content in self._aside

    def _keep(self, path: bytes, prepared: Prepared | Problem) -> None:
        if isinstance(prepared, Problem):
            self._fail(path, prepared._replace(path=path))
        else:
            self._prepared[path] = prepared

    def _prepare(self, place: Place) -> Prepared | Problem:
        if place.kind is Kind.DIRECTORY:
            return self._root.prepare_directory(place)
        if place.kind is Kind.LINK:
            return self._root.prepare_link(place)
        if place.content in self._data:
            return self._root.prepare_bytes(place.content, self._data[place.content], place)
        if place.content in self._large:
            return self._large[place.content].finish(place)
        source = self._local[place.content]
        if isinstance(source, tuple):
            return self._root.prepare_copy(source[0], place, source[1])
        if source is None:
            raise AssertionError("the plan uses only contents at hand")
        return self._root.prepare_history(source, place)

    # ------------------------------------------------------------------ carry out

    def carry_out(self) -> None:
        """Take the steps in order; leave out what builds on a failed one."""
        for step in self._steps:
            if not self._builds_on_failure(step):
                self._take(step)
        for prepared in self._prepared.values():
            self._root.discard(prepared)

    def _builds_on_failure(self, step: Step) -> bool:
        if not self._failed:
            return False
        touched = {step.path}
        place = getattr(step, "place", None)
        row = getattr(step, "row", None)
        for shown in (place, row.place if row else None):
            if shown is not None:
                touched.add(shown.home)
        if isinstance(step, Move):
            touched.add(step.source)
        above = {above for path in touched for above in paths.ancestors(path)}
        if (touched | above) & self._failed:
            self._failed.add(step.path)
            return True
        return False

    def _take(self, step: Step) -> None:
        root = self._root
        match step:
            case PutAside():
                return
            case MakeDirectory(path, place):
                outcome = root.make_directory(path)
            case Create(path, place):
                outcome = root.put(self._taken(path, place), path, None)
            case Replace(path, place, row):
                outcome = root.put(self._taken(path, place), path, row)
            case Move(source, path, place, row):
                target = self._draft.row(path)
                outcome = root.move(source, path, row, place, target)
            case Remove(path, row):
                place, outcome = None, root.remove(path, row)
            case RemoveDirectory(path, row):
                place, outcome = None, root.remove_directory(path, row)
            case SetMetadata(path, place, row):
                outcome = root.set_metadata(path, place, row)
        self._settle(step, place, outcome)
