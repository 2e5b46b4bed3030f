"""Replicas, users, exchanges and crashes as one script, and an oracle that knows the users.

A script is a list of operations; one that does not apply is skipped, so any part of a script is
a script and a failing one can be made small. After every operation and at the end the promises
are checked: no silent loss, no dot twice, no false claim of knowledge, the index agrees with
the specification; and in the end convergence, silence, conflict exactness.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence

from p2psync.core import vector
from p2psync.core.entry import EMPTY, Kind
from p2psync.core.ids import Dot
from p2psync.core.paths import ancestors, is_below
from p2psync.core.view import copy_name
from tests.core.replica import (
    DIRECTORY,
    Batch,
    BrokenError,
    Durable,
    Mark,
    Replica,
    Rules,
    Thing,
    file,
    looks,
)

Op = tuple[object, ...]
Script = Sequence[Op]
Links = list[tuple[str, str]] | None

FRESH = 100  # contents from here on are unique to one edit; below, users may write equal ones
PATHS = (b"p", b"r", b"s")
TREE = (b"p", b"r", b"d", b"d/x", b"d/y", b"p/x", b"d/e/z")
COPY = re.compile(rb"\.conflict-[A-Z2-7]{5}(-\d+)?")
EFFECTS = ("apply", "apply1", "crash", "crashapply", "crashstep")
USES = frozenset(("scan", "sync", "open", "step", "gc", "part", "snap", "roll", *EFFECTS))


class Event:
    """One content that one user put at one path; live until a user who saw it ended it."""

    __slots__ = ("content", "home", "live")

    def __init__(self, content: int, home: bytes, live: bool = True) -> None:
        self.content, self.home, self.live = content, home, live

    def copy(self) -> Event:
        return Event(self.content, self.home, self.live)


class World:
    """The devices of one script."""

    def __init__(self, count: int, rules: Rules = Rules(), links: Links = None) -> None:  # noqa: B008  a value
        self.names = "ABCD"[:count]
        self.replicas = {m: Replica(m, rules, self.names) for m in self.names}
        self.links = links or [(a, b) for a in self.names for b in self.names if a != b]
        self.open: dict[tuple[str, str], Batch] = {}
        self.snaps: dict[str, tuple[Durable, dict[bytes, Thing]]] = {}
        self.events: dict[int, Event] = {}
        self.pending: dict[tuple[str, bytes], int] = {}  # not scanned yet
        self.event_of: dict[Dot, int] = {}
        self.path_of: dict[Dot, bytes] = {}
        self.directories: dict[Dot, bytes] = {}  # made by users and not removed by one
        # (content, path): a user saw these bytes here and took them away. The same bytes put
        # here again by another device at the same time may go too, or stay.
        self.soft: set[tuple[int, bytes]] = set()
        self.next = 0
        self.down: frozenset[str] = frozenset()
        self.lax = False  # a rollback: extra copies are allowed, losses are not
        self.excused = False  # a device died: what only it had is gone
        self.messages = 0

    def clone(self) -> World:
        other = object.__new__(World)
        other.__dict__.update(self.__dict__)
        other.replicas = {m: r.clone() for m, r in self.replicas.items()}
        for name in ("open", "snaps", "pending", "event_of", "path_of", "directories"):
            setattr(other, name, dict(getattr(self, name)))
        other.soft = set(self.soft)
        other.events = {k: e.copy() for k, e in self.events.items()}
        return other

    def freeze(self) -> object:
        return (
            tuple(r.freeze() for r in self.replicas.values()),
            frozenset((k, b.start, b.at, b.end) for k, b in self.open.items()),
            frozenset((k, e.content, e.home, e.live) for k, e in self.events.items()),
            frozenset(self.pending.items()),
        )

    # -- what the oracle learns

    def _drain(self, m: str) -> None:
        replica = self.replicas[m]
        for dot, path, put in replica.made:
            if dot in self.path_of:
                raise BrokenError(f"dot used twice: {dot}: {self.path_of[dot]!r}, {path!r}")
            self.path_of[dot] = path
            if put is None:
                continue
            if put.kind is Kind.DIRECTORY:
                self.directories[dot] = path
            elif put.dots:  # a copy became an ordinary file: the event moves with it
                olds = [self.event_of[d] for d in put.dots if d in self.event_of]
                if olds:
                    self.event_of[dot] = self._new_event(self.events[olds[0]].content, path)
                    for old in olds:
                        self.events[old].live = False
            else:
                event = self.pending.pop((m, path), None)
                if event is not None:
                    self.event_of[dot] = event
        replica.made = []

    def _new_event(self, content: int, path: bytes) -> int:
        self.next += 1
        self.events[self.next] = Event(content, path)
        return self.next

    def _shown(self, m: str, path: bytes) -> set[int]:
        replica = self.replicas[m]
        thing = replica.disk.get(path)
        if thing is None or thing.kind is not Kind.FILE:
            return set()
        if (m, path) in self.pending:
            return {self.pending[m, path]}
        row = replica.index.all_rows.get(path)
        same = {k for k, e in self.events.items() if e.content == thing.content}
        if len(same) > 1 and row and looks(row.place).content == thing.content:
            return {
                self.event_of[d] for d in row.place.dots if d in self.event_of
            } & same or same
        return same

    def _end(self, m: str, path: bytes) -> None:
        """A user ends what he sees at the path."""
        disk = self.replicas[m].disk
        if path not in disk:
            return
        row = self.replicas[m].index.all_rows.get(path)
        if disk[path].kind is Kind.DIRECTORY:
            self.soft.add((0, path))  # all directories are equal
            return
        if row and row.place.home != path and disk.get(row.place.home) == disk[path]:
            return  # half-way through an apply both names show the bytes: one was removed
        self.soft.add((disk[path].content, path))
        for event in self._shown(m, path):
            self.events[event].live = False
        self.pending.pop((m, path), None)

    # -- what users do

    def _would_change(self, m: str, path: bytes, content: int) -> bool:
        """Not the same bytes again, nor back to what was scanned last: that is no change."""
        replica = self.replicas[m]
        row = replica.index.all_rows.get(path)
        now = replica.disk.get(path)
        return content not in (
            now.content if now else -1,
            looks(row.place).content if row else -1,
        )

    def _write(self, m: str, path: bytes, content: int) -> bool:
        disk = self.replicas[m].disk
        if disk.get(path) == DIRECTORY or not self._would_change(m, path, content):
            return False
        if any(disk.get(above, DIRECTORY) != DIRECTORY for above in ancestors(path)):
            return False
        for above in ancestors(path):
            disk[above] = DIRECTORY
        meta = disk[path].meta if path in disk else 0
        self._end(m, path)
        self.pending[m, path] = self._new_event(content, path)
        disk[path] = file(content, meta)
        return True

    def _delete(self, m: str, path: bytes) -> None:
        disk = self.replicas[m].disk
        for below in [p for p in disk if is_below(p, path)]:
            self._end(m, below)
            del disk[below]
        self._end(m, path)
        disk.pop(path, None)

    def _fresh(self) -> int:
        return FRESH + self.next

    def op_w(self, m: str, path: bytes) -> None:
        self._write(m, path, self._fresh())

    def op_c(self, m: str, path: bytes, content: int) -> None:
        self._write(m, path, content)

    def op_m(self, m: str, path: bytes, meta: int) -> None:
        disk = self.replicas[m].disk
        if path in disk and disk[path].kind is Kind.FILE:
            disk[path] = disk[path]._replace(meta=meta)

    def op_d(self, m: str, path: bytes) -> None:
        if path in self.replicas[m].disk:
            self._delete(m, path)

    def op_mv(self, m: str, path: bytes, to: bytes) -> None:
        disk = self.replicas[m].disk
        if path not in disk or path == to or is_below(to, path) or is_below(path, to):
            return
        if disk[path].kind is Kind.FILE:
            content = disk[path].content
            if self._write(m, to, content):
                self._delete(m, path)
        elif to not in disk:
            self.op_mkdir(m, to)
            for below in sorted(p for p in disk if is_below(p, path)):
                new = to + below[len(path) :]
                if disk[below] == DIRECTORY:
                    self.op_mkdir(m, new)
                else:
                    self._write(m, new, disk[below].content)
            if all(to + p[len(path) :] in disk for p in disk if is_below(p, path)):
                self._delete(m, path)

    def op_fill(self, m: str, path: bytes) -> None:
        """A directory comes with things in it."""
        for inner in (b"/x", b"/y", b"/e/z"):
            self._write(m, path + inner, self._fresh())

    def op_mvd(self, m: str, i: int, to: bytes) -> None:
        """A directory that holds something gets another name."""
        disk = self.replicas[m].disk
        filled = sorted({above for path in disk for above in ancestors(path)})
        if i < len(filled):
            self.op_mv(m, filled[i], to)

    def op_swap(self, m: str, path: bytes, to: bytes) -> None:
        disk = self.replicas[m].disk
        a, b = disk.get(path), disk.get(to)
        if not a or not b or a.kind is not Kind.FILE or b.kind is not Kind.FILE:
            return
        if self._would_change(m, path, b.content) and self._would_change(m, to, a.content):
            self._write(m, path, b.content)
            self._write(m, to, a.content)

    def op_mkdir(self, m: str, path: bytes) -> None:
        disk = self.replicas[m].disk
        if path in disk or any(disk.get(a, DIRECTORY) != DIRECTORY for a in ancestors(path)):
            return
        for new in (path, *ancestors(path)):
            disk[new] = DIRECTORY

    def op_turn(self, m: str, path: bytes) -> None:
        """A file becomes a directory, or a directory a file."""
        disk = self.replicas[m].disk
        if path not in disk:
            return
        was = disk[path]
        self._delete(m, path)
        if was.kind is Kind.FILE:
            self.op_mkdir(m, path)
        else:
            self._write(m, path, self._fresh())

    def op_into(self, m: str, path: bytes) -> None:
        """A file moves into a directory of its own name, or out of it again."""
        disk = self.replicas[m].disk
        inner = path + b"/x"
        if path in disk and disk[path].kind is Kind.FILE:
            content = disk[path].content
            if self._would_change(m, inner, content):
                self._delete(m, path)
                self.op_mkdir(m, path)
                self._write(m, inner, content)
        elif disk.get(inner, DIRECTORY).kind is Kind.FILE:
            content = disk[inner].content
            if self._would_change(m, path, content):
                self._delete(m, path)
                self._write(m, path, content)

    def _copies(self, m: str) -> list[bytes]:
        disk = self.replicas[m].disk
        return sorted(p for p in disk if COPY.search(p) and disk[p].kind is Kind.FILE)

    def op_dc(self, m: str, i: int) -> None:
        copies = self._copies(m)
        if i < len(copies):
            self._delete(m, copies[i])

    def op_wc(self, m: str, i: int) -> None:
        copies = self._copies(m)
        if i < len(copies):
            self._write(m, copies[i], self._fresh())

    def op_mc(self, m: str, i: int) -> None:
        copies, disk = self._copies(m), self.replicas[m].disk
        if i < len(copies):
            content, home = disk[copies[i]].content, COPY.sub(b"", copies[i])
            if disk.get(home) != DIRECTORY and self._would_change(m, home, content):
                self._delete(m, copies[i])
                self._write(m, home, content)

    def op_mk(self, m: str, i: int) -> None:
        """An ordinary file on a name that a conflict copy wants or will want."""
        names = {q for r in self.replicas.values() for q in r.tree() if COPY.search(q)}
        names |= {copy_name(p, d, 0) for d, p in self.path_of.items() if not COPY.search(p)}
        free = sorted(names - set(self.replicas[m].disk))
        if i < len(free):
            self._write(m, free[i], self._fresh())

    # -- what agents do

    def op_scan(self, m: str) -> None:
        self.replicas[m].scan()

    def op_look(self, m: str, path: bytes) -> None:
        self.replicas[m].scan([path])

    def op_sync(self, s: str, d: str) -> None:
        self.op_open(s, d)
        self.op_step(s, d, 10**6)

    def op_open(self, s: str, d: str) -> None:
        if (s, d) in self.links:
            self.open[s, d] = self.replicas[s].open_batch(self.replicas[d])

    def op_step(self, s: str, d: str, count: int) -> None:
        batch = self.open.get((s, d))
        if batch is None:
            return
        sender, receiver = self.replicas[s], self.replicas[d]
        for _ in range(count):
            batch, item = sender.next_page(batch)
            if isinstance(item, Mark):
                receiver.take_mark(sender, item)
                del self.open[s, d]
                return
            receiver.receive(sender, batch, *item)
            self.messages += 1
        self.open[s, d] = batch

    def op_cut(self, s: str, d: str) -> None:
        self.open.pop((s, d), None)

    def op_part(self, s: str, d: str, count: int) -> None:
        self.op_open(s, d)
        self.op_step(s, d, count)
        self.op_cut(s, d)

    def _near(self, m: str) -> list[Replica]:
        return [self.replicas[o] for o in self.names if (o, m) in self.links]

    def op_apply(self, m: str, holder: str | None = None) -> int:
        near = self._near(m)
        if holder is not None:
            near = [r for r in near if r.name == holder]
        return self.replicas[m].apply(near, check=self._check_contents)

    def op_apply1(self, m: str, i: int) -> None:
        self.replicas[m].apply(self._near(m), only=i)

    def _restart(self, m: str) -> None:
        self._cut_all(m)
        self.replicas[m].start()

    def _cut_all(self, m: str) -> None:
        self.open = {k: b for k, b in self.open.items() if m not in k}

    def op_crash(self, m: str) -> None:
        self._restart(m)

    def op_crashapply(self, m: str, i: int) -> None:
        self.replicas[m].apply(self._near(m), commit=False, only=i)
        self._restart(m)

    def op_crashstep(self, m: str, i: int) -> None:
        """The agent dies after so many steps of a plan; what they did is not recorded."""
        self.lax = True
        self.replicas[m].apply(self._near(m), commit=False, stop=i)
        self._restart(m)

    def op_down(self, m: str, i: int) -> None:
        """The agent dies in an apply; the user goes on; it starts at its next operation."""
        if m not in self.down:
            self.lax = True  # who edits between apply and recording may get a copy too many
            self.replicas[m].apply(self._near(m), commit=False, only=i)
            self._cut_all(m)
            self.down |= {m}

    def op_gc(self, m: str) -> None:
        self.replicas[m].collect()

    def op_snap(self, m: str) -> None:
        replica = self.replicas[m]
        if all(
            replica.disk.get(p) == looks(r.place) for p, r in replica.index.all_rows.items()
        ):
            self.snaps[m] = (replica.state.copy(), dict(replica.disk))

    def op_roll(self, m: str, whole: int) -> None:
        """A backup of the index is restored, or (whole) of the folder too."""
        if m not in self.snaps:
            return
        self.lax = self.excused = True
        replica = self.replicas[m]
        state, disk = self.snaps[m]
        replica.state = state.copy()
        if whole:
            replica.disk = dict(disk)
            self.pending = {k: e for k, e in self.pending.items() if k[0] != m}
            self._excuse()
            for event in self.events.values():
                shown = {r.disk.get(event.home) for r in self.replicas.values()}
                if event.content not in {t.content for t in shown if t}:
                    self.soft.add((event.content, event.home))
        self._restart(m)

    def op_die(self, m: str) -> None:
        self.links = [link for link in self.links if m not in link]
        self.names = self.names.replace(m, "")
        del self.replicas[m]
        self._cut_all(m)
        self._excuse()
        self.op_forget(m)

    def op_forget(self, m: str) -> None:
        for other in self.names:
            if other != m:
                self.replicas[other].members -= {m}

    def _excuse(self) -> None:
        self.excused = True
        left = self._contents()
        for event in self.events.values():
            event.live = event.live and event.content in left

    # -- running and checking

    def do(self, op: Op) -> None:
        kind, *arguments = op
        if kind in USES:
            for m in [a for a in arguments if a in self.down]:
                self.down -= {m}
                self._restart(m)
                self._drain(m)
        getattr(self, f"op_{kind}")(*arguments)
        for m in self.names:
            if self.replicas[m].made:
                self._drain(m)

    def _contents(self) -> set[int]:
        return {
            content
            for r in self.replicas.values()
            for content in (*r.stage, *(thing.content for thing in r.disk.values()))
        }

    def _check_contents(self) -> None:
        if self.excused:
            return
        there = self._contents()
        for event in self.events.values():
            lost = event.live and event.content >= FRESH and event.content not in there
            if lost and (event.content, event.home) not in self.soft:
                raise BrokenError(f"lost: content {event.content} of {event.home!r}")

    def check_step(self) -> None:
        for m, replica in self.replicas.items():
            replica.check()
            now, entries = replica.index.now, replica.index.all_entries
            for dot, path in self.path_of.items():
                if not vector.covers(now.known, dot) or vector.covers(now.collected, dot):
                    continue
                if not vector.covers(entries.get(path, EMPTY).ctx, dot):
                    raise BrokenError(f"false claim: {m} knows {dot} of {path!r}")
        self._check_contents()

    def quiesce(self) -> None:
        for m in self.names:
            self.do(("scan", m))
        for source, destination in list(self.open):
            self.do(("step", source, destination, 10**6))
        for _ in range(40):
            before, effects = self.messages, 0
            for source, destination in self.links:
                self.do(("sync", source, destination))
            for m in self.names:
                effects += self.op_apply(m)
                self.do(("scan", m))
            if not effects and self.messages == before and not self._give_up():
                return
        raise BrokenError("not silent after 40 rounds")

    def _give_up(self) -> int:
        """What no member holds is given up by its author, or for a member that is gone."""
        if not self.excused:
            return 0
        left = self._contents()
        given = 0
        for m, replica in self.replicas.items():
            gone = frozenset("ABCD") - frozenset(self.names)
            mine = {m} | (gone if m == self.names[0] else frozenset())

            def lost(entry, mine=mine):  # type: ignore[no-untyped-def]
                return [
                    d
                    for d, v in entry.live.items()
                    if v.kind is Kind.FILE
                    and int.from_bytes(v.content, "big") not in left
                    and chr(64 + d[0] // 1_000_000) in mine
                ]

            given += replica.give_up(lost)
            self._drain(m)
        return given

    def check_end(self) -> None:
        self.check_step()
        first = self.replicas[self.names[0]]
        tree = {p: looks(place) for p, place in first.tree().items()}
        for m, replica in self.replicas.items():
            other = {p: looks(place) for p, place in replica.tree().items()}
            if other != tree:
                raise BrokenError(f"diverged: {first.name} wants {tree}, {m} wants {other}")
            if replica.disk != tree:
                raise BrokenError(f"cannot finish: {m} wants {tree}, has {replica.disk}")
        if not self.excused:
            for path in self.directories.values():
                if (0, path) not in self.soft and tree.get(path) != DIRECTORY:
                    raise BrokenError(f"absent: the directory {path!r}")
        self._check_exactness(first)

    def _check_exactness(self, first: Replica) -> None:
        must: dict[bytes, set[int]] = {}
        may: dict[bytes, set[int]] = {}
        for event in self.events.values():
            if event.live:
                may.setdefault(event.home, set()).add(event.content)
                if (event.content, event.home) not in self.soft:
                    must.setdefault(event.home, set()).add(event.content)
        files = [t.content for t in first.disk.values() if t.kind is Kind.FILE]
        for home, contents in must.items():
            fresh = any(content >= FRESH for content in contents)
            if home not in first.disk and fresh and not self.excused:
                raise BrokenError(f"absent: {home!r} with one of {contents}: {first.disk}")
            for content in contents - set(files):
                raise BrokenError(f"lost: content {content} of {home!r}: {must} {first.disk}")
        if self.lax or self.excused:
            return
        for content in {c for c in files if c >= FRESH}:
            low = sum(content in contents for contents in must.values())
            high = sum(content in contents for contents in may.values())
            if not low <= files.count(content) <= high:
                raise BrokenError(f"not exact: {content} of {must} or {may}: {first.disk}")


# -- scripts


def run(script: Script, count: int, rules: Rules = Rules(), links: Links = None) -> World:  # noqa: B008  a value
    """Carry a script out, let everything come to rest, check everything."""
    world = World(count, rules, links)
    for op in script:
        world.do(op)
        world.check_step()
    world.quiesce()
    world.check_end()
    return world


def fails(script: Script, count: int, rules: Rules = Rules(), links: Links = None) -> str:  # noqa: B008  a value
    """Return what breaks; empty when nothing does."""
    try:
        run(script, count, rules, links)
    except BrokenError as broken:
        return str(broken)
    except AssertionError as error:
        return f"assertion: {error!r}"
    return ""


def shrink(script: Script, count: int, rules: Rules, links: Links) -> list[Op]:
    """Return a part of a failing script that fails alike, and of which no part does."""

    def kind(of: Script) -> str:
        return fails(of, count, rules, links).split(":")[0][:16]

    small, alike = list(script), kind(script)
    size = max(1, len(small) // 2)
    while size:
        i = 0
        while i < len(small):
            shorter = small[:i] + small[i + size :]
            if kind(shorter) == alike:
                small = shorter
            else:
                i += size
        size //= 2
    return small


def chain(names: str) -> Links:
    return [(a, b) for i, a in enumerate(names) for j, b in enumerate(names) if abs(i - j) == 1]


def star(names: str) -> Links:
    return [(a, b) for a in names for b in names if a != b and names[0] in (a, b)]


SHAPES: dict[str, Callable[[str], Links] | None] = {"full": None, "chain": chain, "star": star}

WEIGHTS = {
    "w": 6, "d": 3, "scan": 7, "sync": 7, "apply": 6, "apply1": 2,
    "c": 4, "m": 3, "mv": 2, "dc": 3, "wc": 2, "mc": 1, "mk": 1, "part": 4, "open": 2,
    "step": 5, "cut": 1, "crash": 1, "crashapply": 2, "crashstep": 2, "down": 2, "snap": 1,
    "roll": 1, "gc": 4, "forget": 1, "mkdir": 3, "turn": 2, "into": 2, "swap": 2, "look": 1,
    "mvd": 5, "fill": 4,
}  # fmt: skip
ALWAYS = frozenset(("w", "d", "scan", "sync", "apply", "apply1"))
BASIC = ALWAYS | {"part", "open", "step", "cut", "mv", "dc", "wc", "mc"}
ALL = BASIC | {"mk", "m", "crash", "crashapply", "gc", "swap"}
TREES = ALL | {"mkdir", "turn", "into", "mvd", "fill"}
MOVES = ALWAYS | {"fill", "mvd", "mv", "part", "crash", "crashapply", "crashstep"}
ROLL = ALL | {"snap", "roll", "forget", "c", "down"}
FEATURES = {
    "always": ALWAYS,
    "basic": BASIC,
    "all": ALL,
    "trees": TREES,
    "moves": MOVES,
    "roll": ROLL,
}
USERS = frozenset(
    ("w", "d", "c", "m", "mv", "dc", "wc", "mc", "mk", "mkdir", "turn", "into", "mvd", "fill")
)


def generate(rng: random.Random, count: int, length: int, features: frozenset[str]) -> list[Op]:
    """Return a random script."""
    names = "ABCD"[:count]
    paths = PATHS[: rng.choice((1, 1, 2, 3))]
    if "mkdir" in features or "fill" in features:
        paths = tuple(rng.sample(TREE, rng.choice((2, 3, 4, 7))))
    kinds = [k for k in WEIGHTS if k in features for _ in range(WEIGHTS[k])]
    script: list[Op] = []
    for _ in range(length):
        kind, m, path = rng.choice(kinds), rng.choice(names), rng.choice(paths)
        other = rng.choice([n for n in names if n != m])
        script.append((kind, m, *_arguments(kind, rng, m, other, path, paths)))
        if kind in USERS and rng.random() < 0.6:
            script.append(("scan", m))
    return script


def _arguments(
    kind: str, rng: random.Random, m: str, other: str, path: bytes, paths: Sequence[bytes]
) -> tuple[object, ...]:
    few = rng.randrange(3)
    if kind in ("w", "d", "mkdir", "turn", "into", "look", "fill"):
        return (path,)
    if kind == "mvd":
        return (few, rng.choice((*paths, *PATHS, b"d/t")))
    if kind in ("mv", "swap"):
        return (path, rng.choice((*paths, *PATHS)))
    if kind in ("sync", "open", "cut"):
        return (other,)
    if kind == "apply":
        return rng.choice(((), (other,)))
    if kind in ("part", "step"):
        return (other, few)
    return {
        "c": (path, few + 1),
        "m": (path, few % 2),
        "crashstep": (rng.randrange(1, 5),),
        "mk": (rng.randrange(4),),
        **dict.fromkeys(("apply1", "crashapply", "down"), (few,)),
        **dict.fromkeys(("dc", "wc", "mc", "roll"), (few % 2,)),
    }.get(kind, ())


class Found:
    """A schedule that broke, made small."""

    def __init__(self, seed: int, count: int, shape: str, script: list[Op], what: str) -> None:
        self.seed, self.count, self.shape = seed, count, shape
        self.script, self.what = script, what

    def __str__(self) -> str:
        ops = "\n".join(f"    {op!r}," for op in self.script)
        return f"seed {self.seed}, {self.count} replicas, {self.shape}: {self.what}\n{ops}"


def search(
    seeds: Iterable[int],
    features: frozenset[str],
    rules: Rules = Rules(),  # noqa: B008  a value
) -> Found | None:
    """Run one random schedule for every seed; return the first that breaks."""
    for seed in seeds:
        rng = random.Random(seed)
        count = rng.choice((2, 3, 3, 4))
        shape = rng.choice(list(SHAPES))
        make = SHAPES[shape]
        links = make("ABCD"[:count]) if make else None
        script = generate(rng, count, rng.choice((6, 12, 25, 50)), features)
        if fails(script, count, rules, links):
            small = shrink(script, count, rules, links)
            return Found(seed, count, shape, small, fails(small, count, rules, links))
    return None


def exhaust(
    count: int,
    alphabet: Sequence[Op],
    depth: int,
    links: Links = None,
    prefix: Script = (),
) -> tuple[int, str]:
    """Run every script over the alphabet, each state once and each to rest.

    Returns the number of states, and the first that breaks.
    """
    world = World(count, Rules(), links)
    for op in prefix:
        world.do(op)
    layer: list[tuple[World, tuple[Op, ...]]] = [(world, ())]
    seen: set[object] = set()
    states = 0
    for level in range(depth + 1):
        following = []
        for at, path in layer:
            states += 1
            try:
                at.check_step()
                rest = at.clone()
                rest.quiesce()
                rest.check_end()
            except BrokenError as broken:
                return states, f"{broken}: {path}"
            for op in alphabet if level < depth else ():
                after = at.clone()
                after.do(op)
                frozen = after.freeze()
                if frozen not in seen:
                    seen.add(frozen)
                    following.append((after, (*path, op)))
        layer = following
    return states, ""
