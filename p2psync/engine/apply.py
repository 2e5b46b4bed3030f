"""Making the disk look like the view, a batch of paths at a time (design 4.8 and 6).

A batch is: find where each content can be had, plan, prepare everything in staging, make it
durable in one go, put in place step by step and look at what was displaced, make the
directories durable, commit the rows in one transaction. Promises: durable-before-told,
no-blind-destroy (a step whose place is not as its row says does nothing and is scanned),
isolation (a failed step fails what builds on it, nothing else).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from p2psync.core import paths
from p2psync.core.draft import Draft
from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Signature, Want
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
    agree,
    plan,
)
from p2psync.core.problem import Problem, Reason
from p2psync.core.view import same_object
from p2psync.engine.exchange import DraftMaker
from p2psync.errors import IntegrityError, RootTrouble
from p2psync.fs.ground import Surprised, problem_of
from p2psync.fs.partial import Partial
from p2psync.fs.place import Done, Outcome
from p2psync.fs.root import Root
from p2psync.fs.staging import Prepared
from p2psync.store.index import Index

logger = logging.getLogger(__name__)

FEW_DIRECTORIES = 4


@dataclass
class Applied:
    """What one batch did.

    done: paths that show now what the view wants. settled: of those tried, what showed it
    already. rescan: paths whose disk was not as the
    index believed. false: contents whose bytes, all as their sender described them, were not
    what they were called. needed: what the batch made needed (None: no more).
    """

    done: list[bytes] = field(default_factory=list)
    settled: list[bytes] = field(default_factory=list)
    rescan: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    false: set[bytes] = field(default_factory=set)
    needed: dict[bytes, Want | None] = field(default_factory=dict)


class Applier:
    """Applies batches to one replica; synchronous, run in its worker thread."""

    def __init__(self, index: Index, root: Root, draft: DraftMaker) -> None:
        self._index = index
        self._root = root
        self._draft = draft

    def apply(
        self,
        wants: Mapping[bytes, Want],
        staged: Mapping[bytes, Prepared],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply these paths as far as their contents are at hand.

        Args:
            wants: paths with what the view wanted there when they were chosen; what it wants
                now is looked up again.
            staged: small contents that were fetched, durable in staging, by the path they are
                for; what of them is not put in place is discarded.
            large: large contents assembled in staging, by content, each for one path.
        """
        batch = _Batch(self._index, self._root, self._draft(), staged, large)
        try:
            batch.choose(wants)
            batch.prepare()
            # the disk may be ahead of the rows after a power cut, never of the entries: what
            # nobody knows to be wanted would look like a change made here
            self._index.settle()
            batch.carry_out()
            return batch.commit()
        finally:
            batch.discard()

    def at_hand(self, contents: Collection[bytes]) -> set[bytes]:
        """Return those of the contents that stand on this disk, at a path or in history."""
        return self._index.contents_in_rows(contents) | self._index.contents_in_history(
            contents
        )

    def as_known(self, path: bytes) -> bool:
        """Say whether what stands at a path is what its row says: then it may be displaced."""
        row = self._index.rows([path]).get(path)
        try:
            seen = self._root.look(path)
        except OSError:
            return False
        if row is None or seen is None:
            return row is None and seen is None
        return row.signature is None or seen == row.signature


def not_kept(error: OSError) -> RootTrouble:
    """Return that the disk of a root does not keep what is written."""
    why = error.strerror or str(error)
    return RootTrouble("unwritable", f"the disk does not keep what is written: {why}")


def sync_names(root: Root, changed: Iterable[bytes]) -> None:
    """Make durable what was done to the names of these paths, in one go where they are many.

    Raises:
        RootTrouble: the disk does not keep them.
    """
    directories = {paths.parent(path) for path in changed}
    try:
        if len(directories) <= FEW_DIRECTORIES:
            root.sync_directories(directories)
        else:
            root.sync()
    except OSError as error:
        raise not_kept(error) from error


class _Batch:
    """One batch under way."""

    def __init__(
        self,
        index: Index,
        root: Root,
        draft: Draft,
        staged: Mapping[bytes, Prepared],
        large: Mapping[bytes, Partial],
    ) -> None:
        self._index = index
        self._root = root
        self._draft = draft
        self._staged = dict(staged)  # by the path it is for
        self._fetched = {prepared.place.content: prepared for prepared in staged.values()}
        self._large = large
        self._local: dict[bytes, tuple[bytes, Row] | bytes | None] = {}
        self._steps: list[Step] = []
        self._prepared: dict[bytes, Prepared] = {}  # by path
        self._made: list[Prepared] = []  # of those, what was not durable before
        self._failed: set[bytes] = set()
        self._shown: dict[bytes, tuple[Place | None, Signature | None]] = {}
        self._displaced: list[tuple[bytes, bytes, Place]] = []
        self._result = Applied()

    # ------------------------------------------------------------------ choose

    def choose(self, wants: Collection[bytes]) -> None:
        """Plan the steps for these paths and the directories above them."""
        chosen = dict.fromkeys(wants)
        for path in list(chosen):
            chosen.update(dict.fromkeys(paths.ancestors(path)))
        self._steps = plan(chosen, self._draft, self._at_hand)
        planned = {step.path for step in self._steps}
        self._result.settled = [
            path
            for path in wants
            if path not in planned and agree(self._draft.want(path), self._draft.row(path))
        ]

    def _at_hand(self, content: bytes) -> bool:
        if content in self._fetched or content in self._large:
            return True
        if content not in self._local:
            self._local[content] = self._find(content)
        return self._local[content] is not None

    def _find(self, content: bytes) -> tuple[bytes, Row] | bytes | None:
        """Where a content stands on this disk: a path with its row, or a name in history."""
        for path, row in self._index.rows_with_content(content):
            if self._looks_like(path, row):
                return path, row
        return next(iter(self._index.history_with_content(content)), None)

    def _looks_like(self, path: bytes, row: Row) -> bool:
        try:
            seen = self._root.look(path)
        except OSError:
            return False
        return seen is not None and (row.signature is None or seen == row.signature)

    # ------------------------------------------------------------------ prepare

    def prepare(self) -> None:
        """Assemble in staging what the steps will put in place; make it durable."""
        for step in self._steps:
            if isinstance(step, Create | Replace) and not self._take_staged(step):
                self._prepare_step(step)
        try:
            if len(self._made) == 1:
                self._root.sync_file(self._made[0])
            elif self._made:
                self._root.sync()
        except OSError as error:  # nobody can say which of them are not durable
            for path in self._prepared:
                self._fail(problem_of(path, error))

    def _take_staged(self, step: Create | Replace) -> bool:
        """Use what was staged for this very path, if the view wants that content still."""
        staged = self._staged.get(step.path)
        if staged is None or not same_object(staged.place, step.place):
            return False
        self._prepared[step.path] = self._staged.pop(step.path)._replace(place=step.place)
        return True

    def _prepare_step(self, step: Create | Replace) -> None:
        try:
            prepared = self._prepare(step.place)
        except IntegrityError as error:
            prepared = Problem(step.path, Reason.IO_ERROR, str(error))
            self._result.false.add(step.place.content)
        if isinstance(prepared, Problem):
            self._fail(prepared._replace(path=step.path))
        else:
            self._prepared[step.path] = prepared
            self._made.append(prepared)

    def _prepare(self, place: Place) -> Prepared | Problem:
        if place.kind is Kind.DIRECTORY:
            return self._root.prepare_directory(place)
        if place.kind is Kind.LINK:
            return self._root.prepare_link(place)
        content = place.content
        if content in self._fetched:
            return self._root.prepare_again(self._fetched[content], place)
        if content in self._large:
            return self._large[content].finish(place)
        if not self._at_hand(content):
            return Problem(place.home, Reason.CHANGING, "its source here has changed")
        source = self._local[content]
        if isinstance(source, tuple):
            return self._root.prepare_copy(source[0], place, source[1])
        assert source is not None  # it is at hand
        return self._root.prepare_history(source, place)

    # ------------------------------------------------------------------ carry out

    def carry_out(self) -> None:
        """Take the steps in order; leave out what builds on a failed one."""
        for step in self._steps:
            if step.path in self._failed or step.after & self._failed:
                self._leave_out(step)
            elif isinstance(step, Replace | Remove) and not self._all_stand(step.stands):
                self._result.rescan += [path for path, _ in step.stands]
                self._leave_out(step)
            else:
                self._take(step)

    def _leave_out(self, step: Step) -> None:
        self._failed.add(step.path)
        if isinstance(step, Move):
            self._failed.add(step.source)

    def _all_stand(self, stands: Iterable[tuple[bytes, Row]]) -> bool:
        """Say whether the live bytes a step displaces do stand where they are believed to."""
        return all(self._looks_like(path, row) for path, row in stands)

    def _take(self, step: Step) -> None:
        root = self._root
        match step:
            case MakeDirectory(path, place):
                self._settle(step, place, root.make_directory(path))
            case Create(path, place):
                self._settle(step, place, root.put(self._prepared[path], path, None))
            case Replace(path, place, row):
                self._settle(step, place, root.put(self._prepared[path], path, row))
            case Move(source, path, place, row):
                self._settle(step, place, root.move(source, path, row, place))
            case Remove(path, row):
                self._settle(step, None, root.remove(path, row))
            case RemoveDirectory(path, row):
                self._settle(step, None, root.remove_directory(path, row))
            case SetMetadata(path, place, row):
                self._settle(step, place, root.set_metadata(path, place, row))
            case PutAside():
                pass  # everything was copied to staging before the first step

    def _settle(self, step: Step, place: Place | None, outcome: Outcome) -> None:
        """Note what a step came to."""
        match outcome:
            case Done(signature, history):
                self._shown[step.path] = (place, signature)
                self._prepared.pop(step.path, None)
                if isinstance(step, Move):
                    self._shown[step.source] = (None, None)
                row = getattr(step, "row", None)
                if history is not None and row is not None:
                    self._displaced.append((history, step.path, row.place))
            case Surprised(path):
                self._failed.add(step.path)
                self._result.rescan += [path, step.path]
            case Problem():
                self._fail(outcome._replace(path=step.path))

    def _fail(self, problem: Problem) -> None:
        self._failed.add(problem.path)
        self._result.problems.append(problem)

    # ------------------------------------------------------------------ commit

    def commit(self) -> Applied:
        """Make names durable, then the rows; return what was done.

        Raises:
            RootTrouble: the disk does not keep names; what was done is ours and needed still.
        """
        if not self._shown:
            return self._result
        sync_names(self._root, self._shown)
        for path, (place, signature) in self._shown.items():
            self._draft.applied(path, place, signature)
        now_ns = time.time_ns()
        changes = self._draft.finish()
        with self._index.transaction(durable=False):
            self._index.write(changes)
            for name, path, place in self._displaced:
                if place.kind is Kind.FILE:
                    self._index.add_history(
                        name, path, place.content, place.size, now_ns, "displaced"
                    )
        self._result.done = list(self._shown)
        self._result.needed = {path: want for path, want in changes.needed.items() if want}
        return self._result

    def discard(self) -> None:
        """Remove what was prepared and not used."""
        for prepared in (*self._prepared.values(), *self._staged.values()):
            self._root.discard(prepared)
