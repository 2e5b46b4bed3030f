"""Turns what is needed into steps whose every prefix leaves the folder usable.

What is promised of the order (design: data model, 4.8; durability and apply):

- Nothing acts on a path whose new content is not at hand, nor on what depends on such a path.
- A directory is made before what it holds and removed after it.
- Live bytes that a step displaces and that the view wants elsewhere stand there before, or are
  put aside in staging: then a later step takes them from there. A conflict copy is not put at
  its name before the winner can take the place of it.
- What stands here already is not fetched: it is moved, or put aside and put in place.
- Removals come last.

Hard order (a directory around its contents) is never broken; it has no cycles. Soft order (who
takes bytes comes before who displaces them) has one wherever names were swapped; there it is
broken by putting the bytes aside.

The executor compares the disk with `row` before each step, and with the rows in `stands`: live
values of what is displaced stand there by now. If they differ, or a step named
in `after` was not carried out, it leaves the step out and the path is scanned.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from p2psync.core.draft import Draft
from p2psync.core.entry import Kind
from p2psync.core.ids import Dot
from p2psync.core.index import Place, Reader, Row
from p2psync.core.paths import parent
from p2psync.core.view import same_looks, same_object

Paths = frozenset[bytes]
Standing = tuple[tuple[bytes, Row], ...]
_NO_PATHS: Paths = frozenset()


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory where nothing stands."""

    path: bytes
    place: Place
    after: Paths = _NO_PATHS


@dataclass(frozen=True, slots=True)
class Create:
    """Put a file or link where nothing stands; the bytes are at hand or were put aside."""

    path: bytes
    place: Place
    after: Paths = _NO_PATHS


@dataclass(frozen=True, slots=True)
class Replace:
    """Put an object, of any kind, in place of what `row` says, in one exchange.

    A directory that is displaced is empty; if it is not, the exchange is undone.
    """

    path: bytes
    place: Place
    row: Row
    after: Paths = _NO_PATHS
    stands: Standing = ()


@dataclass(frozen=True, slots=True)
class Move:
    """Rename the file at `source`, which is as `row` says, to a path where nothing stands.

    Afterwards nothing is wanted at `source`, and the metadata of `place` at the path.
    """

    source: bytes
    path: bytes
    place: Place
    row: Row
    after: Paths = _NO_PATHS


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the file or link that is as `row` says, into history."""

    path: bytes
    row: Row
    after: Paths = _NO_PATHS
    stands: Standing = ()


@dataclass(frozen=True, slots=True)
class RemoveDirectory:
    """Remove a directory that is empty by now; if it is not, leave it."""

    path: bytes
    row: Row
    after: Paths = _NO_PATHS


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """Set mtime and executable bit of the file whose content stays."""

    path: bytes
    place: Place
    row: Row
    after: Paths = _NO_PATHS


@dataclass(frozen=True, slots=True)
class PutAside:
    """Keep the bytes of the file at the path in staging too; the path itself stays as it is.

    By link where the filesystem has links. A later step finds them there by content.
    """

    path: bytes
    row: Row
    after: Paths = _NO_PATHS


Step = (
    MakeDirectory | Create | Replace | Move | Remove | RemoveDirectory | SetMetadata | PutAside
)


def plan(
    wants: Iterable[bytes], index: Draft | Reader, at_hand: Callable[[bytes], bool]
) -> list[Step]:
    """Return the steps that bring the disk to the view at these paths, as far as is possible.

    wants: needed paths (a mapping from them will do). Paths that these depend on are planned
    with them: directories above, the places of the other values of a conflicted entry.
    at_hand: whether a content can be put in place without asking a peer.
    """
    return _Plan(wants, index, at_hand).steps()


def contents_wanted(
    wants: Iterable[bytes], index: Draft | Reader, at_hand: Callable[[bytes], bool]
) -> dict[bytes, int]:
    """Return the contents to fetch before all of these paths can be planned: their sizes."""
    return _Plan(wants, index, at_hand).missing


@dataclass(slots=True)
class _Task:
    """One path to be changed; either of place and row may be None, never both."""

    path: bytes
    place: Place | None
    row: Row | None
    source: bytes | None = None  # a path here that holds the bytes
    takers: set[bytes] = field(default_factory=set)  # who wants the bytes this displaces
    hard: set[bytes] = field(default_factory=set)  # to be done before, without exception
    requires: set[bytes] = field(default_factory=set)  # to be possible, or this is not

    @property
    def stays(self) -> bool:
        """Only the metadata changes."""
        return bool(self.place and self.row and same_object(self.place, self.row.place))

    @property
    def needs_bytes(self) -> bool:
        """A file is to be put in place; directories and links are made of nothing."""
        return self.place is not None and self.place.kind is Kind.FILE and not self.stays

    @property
    def displaces(self) -> Row | None:
        """What no longer stands here afterwards."""
        return None if self.stays else self.row

    @property
    def first(self) -> set[bytes]:
        """What is done before this, if at all possible."""
        return self.hard | self.takers

    @property
    def rank(self) -> tuple[bool, bytes]:
        """Removals last, children first; all else parents first."""
        if self.place is None:
            return (True, bytes(255 - byte for byte in self.path) + b"\xff")
        return (False, self.path)


class _Plan:
    """One planning under way."""

    def __init__(
        self, wants: Iterable[bytes], index: Draft | Reader, at_hand: Callable[[bytes], bool]
    ) -> None:
        self._draft = index if isinstance(index, Draft) else Draft(index, spare_author=0)
        self._tasks: dict[bytes, _Task] = {}
        self.missing: dict[bytes, int] = {}
        self._done: set[bytes] = set()
        self._done_by: dict[bytes, bytes] = {}
        self._aside: set[bytes] = set()
        self._steps: list[Step] = []
        self._possible: dict[bytes, _Task] = {}
        self._gather(list(wants))
        if all(task.row is None for task in self._tasks.values()):
            self._add_all(at_hand)
            return
        self._follow_dots()
        self._find_bytes(at_hand)
        self._order_directories()
        self._leave_out_the_impossible()

    # ----------------------------------------------------------------- what has to be done

    def _gather(self, paths: list[bytes]) -> None:
        """Make a task of every path given and of every path those depend on."""
        draft = self._draft
        draft.load(paths)
        seen = set(paths)
        while paths:
            path = paths.pop()
            place, row = draft.want(path), draft.row(path)
            related: list[bytes] = []
            if not agree(place, row) and not draft.ignored(path):
                self._tasks[path] = _Task(path, place, row)
                if place is not None:
                    related.append(parent(path))
            for home in {item.home for item in (place, row and row.place) if item}:
                if home != path or draft.names_of(home):
                    related += (home, *draft.names_of(home))
            new = {other for other in related if other and other not in seen}
            if new:
                draft.load(new)
                seen |= new
                paths.extend(new)

    def _add_all(self, at_hand: Callable[[bytes], bool]) -> None:
        """Plan where nothing is displaced: a directory sorts before what it holds.

        Nearly every batch of a first sync is such; it is planned in a fifth of the time.
        """
        for path, task in sorted(self._tasks.items()):
            above = parent(path)
            if above in self._tasks:
                if above not in self._done:
                    continue
                after = frozenset((above,))
            elif above and not _is_directory(self._draft.row(above)):
                continue  # never possible: the directory is not to be touched
            else:
                after = _NO_PATHS
            if task.needs_bytes:
                assert task.place is not None  # it needs bytes
                content = task.place.content
                if not at_hand(content):
                    self.missing[content] = task.place.size
                    continue
            self._steps.append(_step(task, after, ()))
            self._done.add(path)

    def _follow_dots(self) -> None:
        """Find who takes over the values that stand elsewhere than the view wants them."""
        wanted_at: dict[Dot, bytes] = {}
        for task in self._tasks.values():
            if task.place is not None and not task.stays:
                for dot in task.place.dots:
                    wanted_at[dot] = task.path
        for task in self._tasks.values():
            row = task.displaces
            if row is None:
                continue
            for dot in row.place.dots:
                taker = self._tasks.get(wanted_at.get(dot, b""))
                if taker is None or taker is task:
                    continue
                task.takers.add(taker.path)
                assert taker.place is not None  # it wants the dot
                if taker.needs_bytes and same_object(taker.place, row.place):
                    taker.source = task.path
                if taker.place.home == task.path:
                    # The loser is still at its home: it moves when the winner takes the place.
                    taker.requires.add(task.path)

    def _find_bytes(self, at_hand: Callable[[bytes], bool]) -> None:
        """Pair files that are wanted with equal ones that go; note what is nowhere here."""
        leaving: dict[bytes, list[_Task]] = {}
        for task in sorted(self._tasks.values(), key=lambda task: task.path):
            row = task.displaces
            if row is not None and row.place.kind is Kind.FILE:
                leaving.setdefault(row.place.content, []).append(task)
        for task in sorted(self._tasks.values(), key=lambda task: task.path):
            if not task.needs_bytes or task.source is not None:
                continue
            assert task.place is not None  # it needs bytes
            content = task.place.content
            sources = leaving.get(content)
            if sources:
                # One wanted file for each that goes; the last one serves all that remain.
                source = next((s for s in sources if not s.takers), sources[-1])
                task.source = source.path
                source.takers.add(task.path)
            elif not at_hand(content):
                self.missing[content] = task.place.size

    def _order_directories(self) -> None:
        """A directory comes before what is put into it and after what is removed from it."""
        for path, task in self._tasks.items():
            if task.place is not None:
                above = parent(path)
                if above in self._tasks:
                    task.hard.add(above)
                elif above and not _is_directory(self._draft.row(above)):
                    task.requires.add(b"")  # never possible: the directory is not to be touched
            row = task.displaces
            if row is not None and row.place.kind is Kind.DIRECTORY:
                for below in self._draft.rows_under(path):
                    task.hard.add(below)
                    if below not in self._tasks:
                        break  # not now: something is still there

    def _leave_out_the_impossible(self) -> None:
        """Drop the tasks that cannot be done, and then those that require them."""
        needed_by: dict[bytes, list[bytes]] = {}
        out: list[bytes] = []
        for path, task in self._tasks.items():
            task.requires |= task.takers | task.hard
            if any(required not in self._tasks for required in task.requires) or (
                task.needs_bytes
                and task.source is None
                and task.place is not None
                and task.place.content in self.missing
            ):
                out.append(path)
            for required in task.requires:
                needed_by.setdefault(required, []).append(path)
        self._possible = dict(self._tasks)
        while out:
            path = out.pop()
            if self._possible.pop(path, None) is not None:
                out.extend(needed_by.get(path, ()))

    # ----------------------------------------------------------------------- in which order

    def steps(self) -> list[Step]:
        """Return the steps, soft order broken only where nothing else can be done."""
        waiting = {path: len(task.first) for path, task in self._possible.items()}
        releases: dict[bytes, list[bytes]] = {}
        for path, task in self._possible.items():
            for first in task.first:
                releases.setdefault(first, []).append(path)
        ready = [(self._possible[path].rank, path) for path, n in waiting.items() if not n]
        heapq.heapify(ready)
        left = dict.fromkeys(sorted(waiting, key=lambda path: self._possible[path].rank))
        while left:
            path = heapq.heappop(ready)[1] if ready else self._break_cycle(left)
            if path not in left:
                continue
            for done in self._carry_out(self._possible[path]):
                left.pop(done, None)
                for released in releases.get(done, ()):
                    waiting[released] -= 1
                    if not waiting[released]:
                        heapq.heappush(ready, (self._possible[released].rank, released))
        return self._steps

    def _break_cycle(self, left: Iterable[bytes]) -> bytes:
        """Return the path to go first where every path that is left waits for another one."""
        walked: dict[bytes, None] = {}
        at = next(iter(left))
        while at not in walked:
            walked[at] = None
            at = min(self._possible[at].first - self._done)
        order = list(walked)
        for path in (*order[order.index(at) :], *left):
            if self._possible[path].hard <= self._done:
                return path
        raise AssertionError("the order of directories has no cycles")

    def _carry_out(self, task: _Task) -> list[bytes]:
        """Add the steps of one task; return the paths that are done with it."""
        path = task.path
        after = {self._done_by.get(p, p) for p in task.first & self._done}
        if task.displaces is not None and not task.takers <= self._done:
            self._put_aside(path)
            after.add(path)
        moved = self._moved_from(task)
        if moved is not None:
            assert task.place is not None  # a file is wanted here
            assert moved.row is not None  # and stands there
            self._steps.append(Move(moved.path, path, task.place, moved.row, frozenset(after)))
            self._done.update((path, moved.path))
            self._done_by[moved.path] = path
            return [path, moved.path]
        if task.needs_bytes and task.source is not None:
            self._put_aside(task.source)
            after.add(task.source)
        self._steps.append(_step(task, frozenset(after), self._standing(task)))
        self._done.add(path)
        return [path]

    def _standing(self, task: _Task) -> Standing:
        """Return the paths where the view already shows live values of what goes from here."""
        row, draft = task.displaces, self._draft
        if row is None or not row.place.dots or not draft.names_of(row.place.home):
            return ()
        return tuple(
            (path, standing)
            for path, place in draft.shown(row.place.home).items()
            if path not in self._tasks and place.dots & row.place.dots
            if (standing := draft.row(path)) is not None
        )

    def _moved_from(self, task: _Task) -> _Task | None:
        """Return the task of the file that only has to be renamed to here."""
        if task.row is not None or task.source is None or task.source in self._aside:
            return None
        source = self._possible.get(task.source)
        if source is None or source.place is not None or source.path in self._done:
            return None
        return source if source.takers <= self._done | {task.path} else None

    def _put_aside(self, path: bytes) -> None:
        row = self._tasks[path].row
        if path in self._aside or row is None or row.place.kind is not Kind.FILE:
            return
        assert path not in self._done  # who displaces bytes sees to it himself
        self._aside.add(path)
        self._steps.append(PutAside(path, row))


def _step(task: _Task, after: Paths, stands: Standing) -> Step:
    path, place, row = task.path, task.place, task.row
    if place is None:
        assert row is not None  # else there is nothing to do
        if row.place.kind is Kind.DIRECTORY:
            return RemoveDirectory(path, row, after)
        return Remove(path, row, after, stands)
    if row is None:
        if place.kind is Kind.DIRECTORY:
            return MakeDirectory(path, place, after)
        return Create(path, place, after)
    if task.stays:
        return SetMetadata(path, place, row, after)
    return Replace(path, place, row, after, stands)


def agree(place: Place | None, row: Row | None) -> bool:
    """Say whether the disk shows already what the view wants."""
    if place is None:
        return row is None
    return row is not None and same_looks(place, row.place)


def _is_directory(row: Row | None) -> bool:
    return row is not None and row.place.kind is Kind.DIRECTORY
