"""A replica in memory: a disk and an index in dicts, the real rules and plans between them.

What the engine does with SQLite, threads and a filesystem, in the fewest words: look, take,
send, plan, carry out, write. Nothing here knows what users meant; that is the world's part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from p2psync.core import vector
from p2psync.core.draft import Draft
from p2psync.core.entry import EMPTY, Entry, Kind
from p2psync.core.ids import Dot
from p2psync.core.index import Changes, Claim, Place
from p2psync.core.moves import MoveDirectory, directory_moves
from p2psync.core.observed import Observed
from p2psync.core.overlay import is_directory
from p2psync.core.paths import ancestors, is_below, parent
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
from p2psync.core.reconcile import decode, encode, valid
from p2psync.core.target import NOBODY
from p2psync.core.vector import Vector
from p2psync.core.view import Names, claim_names, containers, split, view
from tests.support.dict_index import DictIndex


class BrokenError(Exception):
    """Something that must hold does not."""


class Thing(NamedTuple):
    """What stands on a disk at a path; content is 0 for a directory."""

    kind: Kind
    content: int
    meta: int


DIRECTORY = Thing(Kind.DIRECTORY, 0, 0)


def file(content: int, meta: int = 0) -> Thing:
    return Thing(Kind.FILE, content, meta)


def looks(place: Place) -> Thing:
    return Thing(place.kind, int.from_bytes(place.content, "big"), place.mtime_ns)


def observe(thing: Thing | None) -> Observed | None:
    if thing is None:
        return None
    content = b"" if thing.kind is Kind.DIRECTORY else thing.content.to_bytes(32, "big")
    return Observed(thing.kind, content, 0, b"", False, thing.meta, None)


class Rules(NamedTuple):
    """Ways of the engine that can be switched off, to show what breaks without them."""

    knowledge: str = "mark"  # or "entry": every entry moves it
    start_author: bool = True  # a new author with every start
    scan_first: str = "needed"  # what is scanned after a start before entries are taken in
    paging: str = "until-quiet"  # or "old-end": a batch ends where it was to end at its start
    recheck: bool = True  # a sender that collected meanwhile claims nothing
    full_listing: bool = True
    gossip: bool = True
    look: str = "disk"  # or "rows": what stands at paths that are not scanned


class Logged(Draft):
    """A draft that tells which dots it made, for whom the oracle holds them against users."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # passed on as they are
        self.made: list[tuple[Dot, bytes, Place | None]] = []

    def supersede(
        self, path: bytes, dots: Iterable[Dot], put: Place | None
    ) -> tuple[Dot, Entry]:
        dot, entry = super().supersede(path, dots, put)
        self.made.append((dot, path, put))
        return dot, entry

    def stamp(self, path: bytes, dots: frozenset[Dot], executable: bool, mtime_ns: int) -> None:
        super().stamp(path, dots, executable, mtime_ns)
        self.made.append(((self.author, self.seq), path, None))


class Batch(NamedTuple):
    """A batch of entries under way from one replica to another."""

    start: int
    full: bool
    told: Vector  # the receiver's knowledge when it asked: the filter
    at: int  # arrival sent so far
    end: int
    sent: tuple[tuple[bytes, Entry], ...] = ()


class Mark(NamedTuple):
    """What the end of a batch claims."""

    batch: Batch
    known: Vector
    collected: Vector
    acks: dict[str, Vector]


class Durable:
    """What a restored backup brings back: the index and the exchange's own tables."""

    def __init__(self) -> None:
        self.index = DictIndex()
        self.cursors: dict[str, tuple[int, int]] = {}
        self.starts: list[tuple[int, int]] = []
        self.told: dict[str, Vector] = {}

    def copy(self) -> Durable:
        other = Durable()
        other.index = self.index.copy()
        other.cursors = dict(self.cursors)
        other.starts = list(self.starts)
        other.told = dict(self.told)
        return other


class Replica:
    """One folder on one device."""

    def __init__(self, name: str, rules: Rules, members: Iterable[str]) -> None:
        self.name, self.rules = name, rules
        self.births = 0  # the randomness of ids: never rolled back
        self.disk: dict[bytes, Thing] = {}
        self.stage: frozenset[int] = frozenset()
        self.members = frozenset(members)
        self.state = Durable()
        self.made: list[tuple[Dot, bytes, Place | None]] = []
        self.spare = 0
        self.start(first=True)

    def clone(self) -> Replica:
        other = object.__new__(Replica)
        other.__dict__.update(self.__dict__)
        other.disk, other.made = dict(self.disk), list(self.made)
        other.state = self.state.copy()
        return other

    def freeze(self) -> object:
        ix, state = self.index, self.state
        return (
            ix.now.author,
            ix.now.seq,
            frozenset((p, encode(e)) for p, e in ix.all_entries.items()),
            frozenset(ix.arrived.items()),
            frozenset(ix.all_rows.items()),
            frozenset(ix.now.known.items()),
            frozenset(ix.now.collected.items()),
            frozenset(state.cursors.items()),
            tuple(state.starts),
            frozenset((m, frozenset(k.items())) for m, k in state.told.items()),
            frozenset(self.disk.items()),
            self.members,
            self.stage,
        )

    @property
    def index(self) -> DictIndex:
        return self.state.index

    def tree(self) -> dict[bytes, Place]:
        return view(self.index.all_entries)

    # -- one transaction

    def step(self, work: Callable[[Logged], None]) -> Changes:
        draft = Logged(self.index, spare_author=self.spare)
        work(draft)
        changes = draft.finish()
        self.index.write(changes)
        self.made += draft.made
        return changes

    # -- start, scan

    def start(self, first: bool = False) -> None:
        self.births += 1
        self.spare = (ord(self.name) - 64) * 1_000_000 + self.births
        self.state.starts.append((self.spare, self.index.now.arrival))
        if first or self.rules.start_author:
            now = self.index.now
            self.index.now = type(now)(0, 0, now.arrival, now.known, now.collected)
        if not first and self.rules.scan_first != "no":
            self.scan(self.index.needed if self.rules.scan_first == "needed" else None)

    def scan(self, only: Iterable[bytes] | None = None) -> None:
        paths = set(self.disk) | set(self.index.all_rows) if only is None else set(only)
        for path in list(paths):  # below what is no longer a directory nothing stands
            if self.disk.get(path, file(0)).kind is not Kind.DIRECTORY:
                paths.update(p for p in self.index.all_rows if is_below(p, path))
        observed = {path: observe(self.disk.get(path)) for path in paths}
        look = (lambda p: observe(self.disk.get(p))) if self.rules.look == "disk" else None
        self.step(lambda draft: draft.scan(observed, look))

    # -- exchange

    def receive(self, sender: Replica, batch: Batch, path: bytes, entry: Entry) -> None:
        entry = decode(encode(entry))
        valid(entry)

        def work(draft: Logged) -> None:
            draft.take(path, entry)
            if self.rules.knowledge == "entry":
                draft.finish_mark(entry.ctx, {})

        self.step(work)
        if not batch.full:
            self.state.cursors[sender.name] = (batch.start, batch.at)

    def open_batch(self, receiver: Replica) -> Batch:
        known, collected = receiver.index.now.known, self.index.now.collected
        self.state.told[receiver.name] = known
        full = self.rules.full_listing and not vector.includes(known, collected)
        start, at = receiver.state.cursors.get(self.name, (0, 0))
        at = 0 if full else self._cut_down(start, at)
        return Batch(self.state.starts[-1][0], full, known, at, self.index.now.arrival)

    def _cut_down(self, start: int, arrival: int) -> int:
        starts = self.state.starts
        for i, (known_start, _) in enumerate(starts):
            if known_start == start:
                end = starts[i + 1][1] if i + 1 < len(starts) else self.index.now.arrival
                return min(arrival, end)
        return 0

    def next_page(self, batch: Batch) -> tuple[Batch, tuple[bytes, Entry] | Mark]:
        """The next entry of a batch, or what its mark says."""
        ix = self.index
        last = batch.end if self.rules.paging == "old-end" else ix.now.arrival
        for arrival, path in sorted((a, p) for p, a in ix.arrived.items()):
            entry = ix.all_entries[path]
            new = batch.full or not vector.includes(batch.told, entry.ctx)
            if batch.at < arrival <= last and new:
                item = (path, entry)
                return batch._replace(at=arrival, sent=(*batch.sent, item)), item
        told_all = batch.full or vector.includes(batch.told, ix.now.collected)
        if self.rules.recheck and not told_all:
            ended = batch._replace(end=batch.at)
            return ended, Mark(ended, {}, {}, {})  # collected meanwhile: claim nothing
        if self.rules.paging != "old-end":
            batch = batch._replace(end=ix.now.arrival)
        acks = {**self.state.told, self.name: ix.now.known}
        return batch, Mark(batch, ix.now.known, ix.now.collected, acks)

    def take_mark(self, sender: Replica, mark: Mark) -> None:
        batch = mark.batch

        def work(draft: Logged) -> None:
            if batch.full:
                listed: dict[bytes, Mapping[Dot, object]] = {p: e.live for p, e in batch.sent}
                for path in list(self.index.all_entries):
                    draft.drop(path, mark.known, listed.get(path, {}).keys())
            draft.finish_mark(mark.known, mark.collected)

        self.step(work)
        state = self.state
        state.cursors[sender.name] = (batch.start, batch.end)
        told = {sender.name: mark.known, **(mark.acks if self.rules.gossip else {})}
        for member, known in told.items():
            if member != self.name:
                state.told[member] = vector.join(state.told.get(member, {}), known)

    def collect(self) -> None:
        others = [self.state.told.get(m, {}) for m in self.members if m != self.name]
        self.step(lambda draft: draft.collect(others, list(self.index.all_entries)))

    def give_up(self, lost: Callable[[Entry], list[Dot]]) -> int:
        def work(draft: Logged) -> None:
            for path, entry in list(self.index.all_entries.items()):
                draft.give_up(path, lost(entry))

        before = self.index.now.seq
        self.step(work)
        return self.index.now.seq - before

    # -- apply

    def at_hand(self, holders: Iterable[Replica]) -> set[int]:
        return {
            content
            for r in (self, *holders)
            for content in (*r.stage, *(thing.content for thing in r.disk.values()))
        }

    def apply(
        self,
        holders: Iterable[Replica],
        commit: bool = True,
        only: int | None = None,
        stop: int | None = None,
        check: Callable[[], None] | None = None,
    ) -> int:
        """Bring the disk to the view as far as possible; return how many steps were made.

        commit False: the process dies before what it did is recorded. only: the place in the
        list of needed paths of the one to apply. stop: dies after so many steps.
        """
        done = 0 if only is not None else self._move_directories(commit, stop, check)
        if stop is not None:
            stop -= done
        holders = list(holders)
        for _ in range(4):
            needed = sorted(self.index.needed)
            if only is not None:
                needed = needed[only : only + 1]
            have = self.at_hand(holders)
            contents = {content.to_bytes(32, "big") for content in have}
            draft = Draft(self.index, spare_author=self.spare)
            steps = plan(needed, draft, contents.__contains__)
            if stop is not None:
                steps = steps[:stop]
            made = self._carry_out(steps, have, commit, check)
            done += made
            if not made or not commit or only is not None:
                break
        return done

    def _move_directories(
        self, commit: bool, stop: int | None, check: Callable[[], None] | None
    ) -> int:
        """Rename whole directories; return how many steps were made."""
        made = 0
        skipped: set[bytes] = set()
        for step in directory_moves(self.index)[:stop]:
            if isinstance(step, MakeDirectory):
                if step.path in self.disk or not self._has_parent(step.path):
                    skipped.add(step.path)
                    continue
                self.disk[step.path] = DIRECTORY
                if commit:
                    self._record(step)
            elif step.after & skipped or not self._move_directory(step):
                skipped.add(step.path)
                continue
            elif commit:
                self.index.rename_directory(step.source, step.path)
            made += 1
            if check is not None:
                check()
        return made

    def _move_directory(self, step: MoveDirectory) -> bool:
        """Rename a directory on the disk, if all in it is as the rows say."""
        disk, source = self.disk, step.source
        there = {p: thing for p, thing in disk.items() if p == source or is_below(p, source)}
        rows = {source: step.row, **dict(self.index.rows_in(source))}
        if there != {path: looks(row.place) for path, row in rows.items()}:
            return False
        if step.path in disk or not self._has_parent(step.path):
            return False
        for path, thing in there.items():
            del disk[path]
            disk[step.path + path[len(source) :]] = thing
        return True

    def _carry_out(
        self, steps: list[Step], have: set[int], commit: bool, check: Callable[[], None] | None
    ) -> int:
        skipped: set[bytes] = set()
        made = 0
        for step in steps:
            if step.after & skipped or not self._effect(step, have):
                skipped.add(step.path)
                continue
            made += not isinstance(step, PutAside)
            if commit:
                self._record(step)
            if check is not None:
                check()
        self.stage -= {thing.content for thing in self.disk.values()}
        return made

    def _effect(self, step: Step, have: set[int]) -> bool:
        """Change the disk, if it is as the plan believed."""
        disk, path = self.disk, step.path
        if isinstance(step, (Move, Create, MakeDirectory)):
            if path in disk or not self._has_parent(path):
                return False
            if not isinstance(step, Move):
                return self._put(path, step.place, have)
            if disk.get(step.source) != looks(step.row.place):
                return False
            del disk[step.source]
            disk[path] = looks(step.place)
            return True
        if disk.get(path) != looks(step.row.place):
            return False
        if isinstance(step, (Replace, Remove)) and any(
            disk.get(other) != looks(row.place) for other, row in step.stands
        ):
            return False
        return self._change(step, have)

    def _change(
        self, step: Replace | Remove | RemoveDirectory | SetMetadata | PutAside, have: set[int]
    ) -> bool:
        """Change what stands there and is as the plan believed."""
        disk, path = self.disk, step.path
        if isinstance(step, PutAside):
            self.stage |= {disk[path].content}
            return True
        if step.row.place.kind is Kind.DIRECTORY and any(is_below(p, path) for p in disk):
            return False
        if isinstance(step, (Remove, RemoveDirectory)):
            if isinstance(step, RemoveDirectory) != (disk[path].kind is Kind.DIRECTORY):
                raise BrokenError(f"the wrong way to remove: {step}")
            del disk[path]
            return True
        if isinstance(step, SetMetadata) and step.place.content != step.row.place.content:
            raise BrokenError(f"more than metadata: {step}")
        return self._put(path, step.place, have)

    def _put(self, path: bytes, place: Place, have: set[int]) -> bool:
        thing = looks(place)
        if thing.kind is Kind.FILE and thing.content not in have | self.stage:
            raise BrokenError(f"planned without its content: {path!r} {thing}")
        self.disk[path] = thing
        return True

    def _has_parent(self, path: bytes) -> bool:
        above = parent(path)
        if not above or self.disk.get(above) == DIRECTORY:
            return True
        row = self.index.all_rows.get(above)
        if self.disk.get(above) == (row and looks(row.place)):
            raise BrokenError(f"planned without a directory: {path!r}")
        return False  # the user did something to it

    def _record(self, step: Step) -> None:
        place = None
        if isinstance(step, (Create, MakeDirectory, Replace, Move, SetMetadata)):
            place = step.place

        def work(draft: Logged) -> None:
            if isinstance(step, Move):
                draft.applied(step.source, None, None)
            draft.applied(step.path, place, None)

        if not isinstance(step, PutAside):
            self.step(work)

    # -- what must hold at any time

    def check(self) -> None:
        """The index says of itself exactly what the specification says of its entries."""
        ix = self.index
        tree = self.tree()
        for path in set(tree) | set(ix.all_rows) | set(ix.needed):
            want, row = tree.get(path), ix.all_rows.get(path)
            agree = (want and looks(want)) == (row and looks(row.place))
            needed = ix.needed.get(path)
            if agree != (needed is None) or (needed and needed.place != want):
                raise BrokenError(
                    f"needed of {self.name}: {path!r} {needed} want {want} row {row}"
                )
            if agree and row and row.place != want:
                raise BrokenError(f"stale row of {self.name}: {path!r} {row} want {want}")
        for path in tree:
            for above in ancestors(path):
                if above not in tree or tree[above].kind is not Kind.DIRECTORY:
                    raise BrokenError(f"a file hides a subtree: {above!r} of {path!r}")
        spec = self._claims()
        if ix.all_claims != spec:
            raise BrokenError(f"claims of {self.name}: {ix.all_claims} should be {spec}")

    def _claims(self) -> dict[bytes, Names]:
        entries = self.index.all_entries
        holding = containers(entries)
        copies, ordinary = [], set(holding)
        spec: dict[bytes, Names] = {}
        for path in sorted(holding.union(entries)):
            entry = entries.get(path, EMPTY)
            if path in holding and not is_directory(entry):
                spec[path] = {path: [Claim(path, NOBODY, 0, placed=False)]}
            if entry.live:
                ordinary.add(path)
            copies += [(path, copy) for copy in split(path, entry, path in holding)[1]]
        for home, names in claim_names(copies, ordinary.__contains__).items():
            spec.setdefault(home, {}).update(names)
        return spec
