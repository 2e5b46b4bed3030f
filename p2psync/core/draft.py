"""All rules of the data model, run over an index; what they change is written afterwards.

A `Draft` is one step: it reads through a `Reader`, takes entries and looks at the disk in, and
`finish` returns the `Changes` of one transaction. It decides nothing by time or chance, so the
explorations run it over dicts and the agent over SQLite.

What makes large batches cheap: questions to the index are asked in bulk (`load`), and the view
is followed only where a change can reach (`core.target`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice

from p2psync.core import local
from p2psync.core.entry import EMPTY, Entry, Value
from p2psync.core.ids import Dot
from p2psync.core.index import Changes, Facts, Place, Reader, Row, Signature, Want
from p2psync.core.observed import Observed
from p2psync.core.reconcile import SEQ_AHEAD, SEQ_MAX, reconcile
from p2psync.core.target import Target
from p2psync.core.vector import Vector, covers, includes, join
from p2psync.core.view import same_looks

WALK_PATHS = 1_000
"""How many paths a walk over the whole index loads at a time."""


def _nothing_ignored(path: bytes) -> bool:
    return False


class Draft(Target):
    """One step of the rules over an index.

    spare_author: the random id to make changes under when this start has none yet.
    ignored: paths for which it is true are never needed.
    """

    def __init__(
        self,
        reader: Reader,
        *,
        spare_author: int,
        ignored: Callable[[bytes], bool] = _nothing_ignored,
    ) -> None:
        super().__init__(reader, spare_author)
        self.ignored = ignored

    # ------------------------------------------------------------------------ receiving

    def take(self, path: bytes, incoming: Entry) -> bool:
        """Take in what a peer knows of a path; say whether anything changed here.

        Raises:
            ValueError: a seq is so far beyond the known one that somebody inflates it.
        """
        mine = self._get(path)
        known = self.known
        news = False
        for author, seq in incoming.ctx.items():
            ahead = seq - known.get(author, 0)
            if ahead > 0:
                news = True
                if ahead > SEQ_AHEAD:
                    raise ValueError("a seq far beyond the known one")
        if mine is None:
            if not news:
                return False  # collected here already
            mine = EMPTY
        new = reconcile(mine, incoming, known)
        if new is mine:
            return False
        self.store(path, new)
        return True

    def drop(self, path: bytes, known: Vector, listed: Collection[Dot]) -> None:
        """Take a full listing at its word: what its sender knows and does not list is dead.

        known: the sender's knowledge as its mark says it. listed: the live dots it listed for
        this path. No dot is made: a delete that was collected is found again, not made.
        """
        entry = self._get(path)
        if entry is None:
            return
        live = {d: v for d, v in entry.live.items() if d in listed or not covers(known, d)}
        if len(live) != len(entry.live):
            self.store(path, Entry(entry.ctx, live))

    def finish_mark(self, known: Vector, collected: Vector) -> None:
        """Join a mark's claims into what is known here; nothing else moves knowledge.

        Raises:
            ValueError: a seq is so far beyond the known one that somebody inflates it.
        """
        for author, seq in (*known.items(), *collected.items()):
            if not 1 <= seq <= min(self.known.get(author, 0) + SEQ_AHEAD, SEQ_MAX):
                raise ValueError("a seq far beyond the known one")
        self.known = join(self.known, known)
        self._known_is_ours = False
        self.collected = join(self.collected, collected)

    def overclaims(self, vector: Vector) -> bool:
        """Say whether a peer claims more of the current author than was made here.

        Then this index was rolled back, or is a copy: `new_author` before anything else.
        """
        return bool(self.author) and vector.get(self.author, 0) > self.seq

    def new_author(self, spare_author: int) -> None:
        """Go on under a new author, and make the own live values anew under it.

        The old author's dots may name other changes elsewhere. Heights, contents and metadata
        stay, so nothing is transferred and no winner changes.
        """
        old, self.author, self.seq = self.author, spare_author, 0
        for paths in self._walk():
            for path in paths:
                entry = self.entry(path)
                if any(dot[0] == old for dot in entry.live):
                    self._redot(path, entry, old)

    def _redot(self, path: bytes, entry: Entry, old: int) -> None:
        ctx = dict(entry.ctx)
        live: dict[Dot, Value] = {}
        for dot, value in entry.live.items():
            if dot[0] == old:
                dot = self.dot()
                ctx[dot[0]] = dot[1]
            live[dot] = value
        self.store(path, Entry(ctx, live))

    def _walk(self) -> Iterable[list[bytes]]:
        """Yield all paths with live values in the index, loaded, a thousand at a time."""
        living = self.reader.live_below(b"")
        while paths := list(islice(living, WALK_PATHS)):
            self.load(paths)
            yield paths

    # ------------------------------------------------------------------------- the disk

    def scan(
        self, observed: Mapping[bytes, Observed | None], look: local.Look | None = None
    ) -> None:
        """Take in what a look at the disk found at these paths; see `core.local`.

        observed: None for a path confirmed to be missing. The paths below a directory that is
        gone have to be among them: a missing directory only says that itself is missing.
        look: what stands on the disk at any other path; without it the rows are believed.
        """
        local.scan(self, observed, look)

    def applied(self, path: bytes, place: Place | None, signature: Signature | None) -> None:
        """Record that the disk now shows `place` at the path; None: nothing."""
        self.set_row(path, None if place is None else Row(place, signature))

    def forget_row(self, path: bytes) -> None:
        """Believe nothing about the disk at the path, and claim nothing about it either.

        For a path that became ignored, and in safe mode, where missing means fetch.
        """
        self.set_row(path, None)

    def touch(self, path: bytes) -> None:
        """Look anew whether the path is needed: what is ignored has changed."""
        self._affected.add(path)

    # ------------------------------------------------------------------------ old things

    def collect(self, members_known: Sequence[Vector], paths: Iterable[bytes]) -> None:
        """Let go of those of the tombstones that every member has taken in.

        members_known: the knowledge of every other member as last told.
        """
        paths = list(paths)
        self.load(paths)
        gone: dict[int, int] = {}
        for path in paths:
            entry = self._get(path)
            if entry is None or entry.live or self.row(path) is not None:
                continue
            if all(includes(known, entry.ctx) for known in (self.known, *members_known)):
                self.store(path, None)
                for author, seq in entry.ctx.items():
                    gone[author] = max(seq, gone.get(author, 0))
        self.collected = join(self.collected, gone)

    def give_up(self, path: bytes, dots: Iterable[Dot]) -> None:
        """Take values off whose content no member holds any more."""
        gone = [dot for dot in dots if dot in self.entry(path).live]
        if gone:
            self.supersede(path, gone, None)

    # ------------------------------------------------------------------------ the result

    def finish(self) -> Changes:
        """Return what is to be written, in one transaction; ends the draft."""
        if self._dirty:
            self._catch_up()
        affected = self._affected | self._rows_set
        self.load(affected)
        needed: dict[bytes, Want | None] = {}
        for path in affected:
            needed[path] = self._needed(path)
        entries: dict[bytes, tuple[int, Entry] | None] = {}
        for path in self._stored:
            entry = self._entries[path]
            if entry is None:
                entries[path] = None
            else:
                self.arrival += 1
                entries[path] = (self.arrival, entry)
        return Changes(
            facts=Facts(self.author, self.seq, self.arrival, self.known, self.collected),
            entries=entries,
            rows={path: self._rows[path] for path in self._rows_set},
            claims={home: self._names[home] for home in self._names_set},
            needed=needed,
        )

    def _needed(self, path: bytes) -> Want | None:
        """Compare view and row; a row whose bytes equal the view's takes the view's dots."""
        want, row = self._wanted(path), self._rows[path]
        if row is None:
            if want is None:
                return None
        elif want is not None and same_looks(want, row.place):
            if want != row.place:
                self.set_row(path, Row(want, row.signature))
            return None
        return None if self.ignored(path) else Want(want)
