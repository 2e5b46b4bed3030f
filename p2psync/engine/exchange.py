"""One replica's exchange of entries with one peer over one session (design 4.4, 4.7).

Synchronous, and run in the replica's worker thread, so that what a mark says is of the same
moment as "nothing newer to send". Promises:

- entries go in order of arrival; a cut session keeps the cursor and claims nothing;
- only a mark moves knowledge;
- a peer whose knowledge does not cover what we have collected gets a full listing;
- what `next_messages` returns is durable: pages that come in, scans and applies need not be
  so one by one (they cost a third of the receiver's time in a first sync);
- once both sides know the same, `next_messages` returns nothing: silence.

The order of a session: both sides send `Attach`; each answers the other's with `Recognised`
and, where the digests meant nothing to it, receives `Knowledge`; then pages and marks flow.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from p2psync.core import paths, vector
from p2psync.core.draft import Draft
from p2psync.core.entry import Entry
from p2psync.core.index import Changes
from p2psync.core.reconcile import decode, valid
from p2psync.core.vector import Vector
from p2psync.errors import RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.messages import (
    Attach,
    Entries,
    Item,
    Knowledge,
    Mark,
    Message,
    Recognised,
)
from p2psync.store.index import Index

logger = logging.getLogger(__name__)

SURELY_FINE = 16 * limits.KIB  # bytes of an entry that cannot break a limit of its kind
MARK_AUTHORS = 56_000  # in all vectors of one mark, so that it fits a control frame

DraftMaker = Callable[[], Draft]


@dataclass(frozen=True)
class Told:
    """What the peer last told of itself. known: None before the two recognised each other."""

    known: Vector | None = None
    need_files: int = 0
    need_bytes: int = 0
    stuck: bool = False
    marked: bool = False

    def lacking(self, mark: Mark) -> Told:
        """Return the same with what a mark says is lacking there."""
        return Told(self.known, mark.need_files, mark.need_bytes, mark.stuck, marked=True)


class Exchange:
    """Both directions of one folder over one session.

    Args:
        index: the replica's index.
        folder: the FolderId on the wire.
        peer: the key under which cursors and knowledge of the peer are kept.
        draft: makes a draft over the index with the replica's ignore rules and spare author.
        need: returns what this replica lacks now: files and bytes.
        stuck: returns whether it gets no further with that by itself.
        settled: returns false while what was told may be half of a move (`Scanner.settled`):
            then no batch ends, so that the peer has both halves when it does.
    """

    def __init__(
        self,
        index: Index,
        folder: bytes,
        peer: bytes,
        draft: DraftMaker,
        need: Callable[[], tuple[int, int]],
        stuck: Callable[[], bool],
        settled: Callable[[], bool],
    ) -> None:
        self._index = index
        self._folder = folder
        self._peer = peer
        self._draft = draft
        self._need = need
        self._stuck = stuck
        self._settled = settled
        self.told = Told()
        self._attached = False  # the peer has
        self._overclaimed = False
        # sending
        self._may_send = False
        self._at = 0
        self._full = False
        self.more = False  # the last page ended before the end of what there is
        self._in_batch = False
        self._marked = False
        self._sent_known: Vector = {}
        self._sent_collected: Vector = {}
        self._sent_acks: dict[bytes, Vector] = {}
        self._heard_acks: dict[bytes, Vector] = {}
        self._sent_need: tuple[int, int, bool] | None = None
        self.held_back = False
        """How much is lacking here has changed and was not told."""

        self._echoes: list[tuple[int, int]] = []
        # receiving
        self._collected: Vector = {}
        self._listing = False

    # ------------------------------------------------------------------ getting acquainted

    def attach(self) -> Attach:
        """Return the first message; what it stands for is the base of all our marks."""
        facts = self._index.facts()
        start, arrival = self._index.cursor(self._peer)
        self._sent_known, self._sent_collected = facts.known, facts.collected
        return Attach(
            self._folder,
            start,
            arrival,
            vector.digest(facts.known),
            vector.digest(facts.collected),
        )

    def take_attach(self, message: Attach) -> Recognised:
        """Learn how far the peer has come; say whether its digests mean something to us.

        Raises:
            RemoteProtocolError: it attached before.
        """
        if self._attached:
            raise RemoteProtocolError("attached twice")
        self._attached = True
        self._at = self._index.arrival_of(message.start, message.arrival)
        facts = self._index.facts()
        known = self._vector_of(message.known, facts.known, self._index.peer_known(self._peer))
        collected = self._vector_of(
            message.collected, facts.collected, self._index.peer_collected(self._peer)
        )
        if known is None or collected is None:
            return Recognised(self._folder, False)
        self._acquainted(known, collected)
        return Recognised(self._folder, True)

    @staticmethod
    def _vector_of(digest: bytes, *candidates: Vector) -> Vector | None:
        for candidate in (*candidates, {}):
            if vector.digest(candidate) == digest:
                return candidate
        return None

    def take_recognised(self, message: Recognised) -> list[Message]:
        """The peer knows our base now, or will with the returned `Knowledge`: we may send.

        Raises:
            RemoteProtocolError: it said so before.
        """
        if self._may_send:
            raise RemoteProtocolError("recognised twice")
        self._may_send = True
        if message.recognised:
            return []
        return [Knowledge(self._folder, self._sent_known, self._sent_collected)]

    def take_knowledge(self, message: Knowledge) -> None:
        """Learn the peer's whole knowledge.

        Raises:
            RemoteProtocolError: we did not ask for it, or it is too large.
        """
        if not self._attached or self.told.known is not None:
            raise RemoteProtocolError("knowledge nobody asked for")
        _bounded(message.known, message.collected)
        self._acquainted(message.known, message.collected)

    def _acquainted(self, known: Vector, collected: Vector) -> None:
        self.told = Told(known)
        self._collected = collected
        self._index.join_peer(self._peer, known, collected)
        self._watch_author(known)

    def _watch_author(self, known: Vector) -> None:
        """A peer that knows more of our author than we made: our state was rolled back."""
        draft = self._draft()
        if draft.overclaims(known):
            if self._overclaimed:  # making all values anew, again and again, is no small work
                raise RemoteProtocolError("it knows changes that nobody made")
            self._overclaimed = True
            logger.warning("a peer knows changes of ours that we do not: starting a new author")
            draft.new_author(secrets.randbits(63) | 1)
            self._index.write(draft.finish())

    # ------------------------------------------------------------------ sending

    def relist(self) -> None:
        """Send everything again, as a full listing: the digests differ (design 4.9)."""
        self._full, self._at, self._in_batch = True, 0, True

    def speak_up(self) -> None:
        """Send a mark even without news: what was refused may be asked for again."""
        self._marked = False

    def next_messages(self, *, often: bool = True) -> list[Message]:
        """Return a page, a mark, both or nothing.

        often: false holds a mark back that would only say that a little less is lacking here.

        Call again until there is nothing and `more` is false: what the peer knows already is
        passed over in steps, so that no call takes long.
        """
        known = self.told.known
        if known is None or not self._may_send:
            return []
        facts = self._index.facts()
        if not self._full and not vector.includes(known, facts.collected):
            # also when we collected in the middle of a batch that left things out
            self._full, self._at, self._in_batch = True, 0, False
        page = self._index.page(
            self._at,
            known=None if self._full else known,
            limit_items=limits.PAGE_ENTRIES,
            limit_bytes=limits.PAGE_BYTES,
        )
        items = [
            Item(arrival, path, msgspec.Raw(body))
            for arrival, path, body in page.items
            if (self._full or not self._echoed(arrival)) and acceptable(path, body)
        ]
        self._at, self.more = page.end, page.more
        messages: list[Message] = []
        if items:
            self._in_batch = True
            messages.append(Entries(self._folder, self._index.start, self._full, items))
        if not page.more and self._settled():
            messages += self._mark(often)
        if messages:
            self._index.settle()
        return messages

    def _echoed(self, arrival: int) -> bool:
        return any(low <= arrival <= high for low, high in self._echoes)

    def _mark(self, often: bool) -> list[Message]:
        facts = self._index.facts()
        known = vector.beyond(facts.known, self._sent_known)
        collected = vector.beyond(facts.collected, self._sent_collected)
        acks = self._acks(facts.known, MARK_AUTHORS - len(known) - len(collected))
        files, size = self._need()
        # what peers announce may add up to anything
        need = files, min(size, limits.SEQ_MAX), files > 0 and self._stuck()
        if self._marked and not (self._in_batch or known or collected or acks):
            # the last file, or that nothing goes on, is told at once
            self.held_back = need != self._sent_need and files > 0 and not (often or need[2])
            if need == self._sent_need or self.held_back:
                return []
        self.held_back = False
        mark = Mark(
            self._folder,
            self._index.start,
            facts.arrival,
            self._full,
            known,
            collected,
            acks,
            *need,
        )
        self._sent_known, self._sent_collected = facts.known, facts.collected
        self._sent_need = need
        self._at, self._full, self._in_batch, self._marked = facts.arrival, False, False, True
        self._echoes = []
        return [mark]

    def _acks(self, mine: Vector, room: int) -> dict[bytes, Vector | None]:
        """What other members are known to know, beyond what was told or heard already.

        room: how many authors still fit; what does not goes with the next mark.
        """
        acks: dict[bytes, Vector | None] = {}
        for member, known in self._index.peers_known().items():
            if member == self._peer:
                continue
            told = vector.join(
                self._sent_acks.get(member, {}), self._heard_acks.get(member, {})
            )
            news = vector.beyond(known, told)
            all_of_it = vector.includes(known, mine)
            if not news or (len(news) > room and not all_of_it):
                continue
            acks[member] = None if all_of_it else news
            self._sent_acks[member] = vector.join(told, known)
            room -= 0 if all_of_it else len(news)
            if len(acks) == limits.MEMBERS:
                break
        return acks

    # ------------------------------------------------------------------ receiving

    def take_entries(self, message: Entries) -> Changes:
        """Take in one page; durable before anybody is told of it.

        Raises:
            RemoteProtocolError: the page breaks a rule; nothing of it was taken in.
        """
        if self.told.known is None:
            raise RemoteProtocolError("entries before knowledge")
        incoming = {item.path: self._checked(item) for item in message.items}
        if not incoming:
            raise RemoteProtocolError("an empty page")
        _not_too_deep(incoming)
        draft = self._draft()
        draft.load(incoming)
        try:
            for path, entry in incoming.items():
                draft.take(path, entry)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from error
        changes = draft.finish()
        with self._index.transaction(durable=False):
            self._index.write(changes)
            if message.full:
                self._begin_listing()
                self._index.listing_add(
                    self._peer, [(path, list(entry.live)) for path, entry in incoming.items()]
                )
            else:
                last = message.items[-1].arrival
                self._index.set_cursor(self._peer, message.start, last)
        self._remember_echoes(changes, incoming)
        return changes

    @staticmethod
    def _checked(item: Item) -> Entry:
        try:
            paths.check(item.path)
            entry = decode(bytes(item.entry))
            valid(entry)
            return entry
        except ValueError as error:
            shown = paths.printable(item.path[:200])
            raise RemoteProtocolError(f"entry of {shown}: {error}") from error

    def _remember_echoes(self, changes: Changes, incoming: dict[bytes, Entry]) -> None:
        """Note which arrivals hold exactly what the peer sent: it need not get them back."""
        same = sorted(
            stored[0]
            for path, entry in incoming.items()
            if (stored := changes.entries.get(path)) and stored[1] == entry
        )
        for arrival in same:
            if self._echoes and self._echoes[-1][1] == arrival - 1:
                self._echoes[-1] = (self._echoes[-1][0], arrival)
            else:
                self._echoes.append((arrival, arrival))

    def _begin_listing(self) -> None:
        if not self._listing:
            self._index.listing_begin(self._peer)
            self._listing = True

    def take_mark(self, message: Mark, members: Collection[bytes]) -> Changes:
        """Take in what the peer claims; durable when this returns.

        members: the peer keys whose acknowledgements mean something here.

        Raises:
            RemoteProtocolError: the mark came before knowledge, or claims what cannot be.
        """
        if self.told.known is None:
            raise RemoteProtocolError("a mark before knowledge")
        known = vector.join(self.told.known, message.known)
        collected = vector.join(self._collected, message.collected)
        _bounded(known, collected)
        draft = self._draft()
        if self._is_known(message, known, collected):
            self.told = Told(known).lacking(message)
            return draft.finish()
        with self._index.transaction():
            if message.full:
                self._begin_listing()
                for path, listed in self._index.listing_missing(self._peer):
                    draft.drop(path, known, listed)
                self._index.listing_end(self._peer)
            facts = self._index.facts()
            news = (
                vector.beyond(known, facts.known),
                vector.beyond(collected, facts.collected),
            )
            try:
                draft.finish_mark(*news)
            except ValueError as error:
                raise RemoteProtocolError(str(error)) from error
            changes = draft.finish()
            self._check_growth(changes.facts.known)
            self._index.write(changes)
            self._index.set_cursor(self._peer, message.start, message.end)
            self._index.join_peer(self._peer, known, collected)
            self._take_acks(message.acks, known, members)
        self._listing = False
        self._collected = collected
        self.told = Told(known).lacking(message)
        self._watch_author(known)
        return changes

    def _is_known(self, message: Mark, known: Vector, collected: Vector) -> bool:
        """Say whether nothing of a mark is to be kept: then it costs no commit."""
        facts = self._index.facts()
        return (
            not (message.full or message.known or message.collected or message.acks)
            and vector.includes(facts.known, known)
            and vector.includes(facts.collected, collected)
            and self._index.cursor(self._peer) == (message.start, message.end)
        )

    def _check_growth(self, known: Vector) -> None:
        """Refuse authors without number, which would make every later hello larger."""
        if len(known) > max(limits.AUTHORS, len(self._index.facts().known)):
            raise RemoteProtocolError("too many authors in all")

    def _take_acks(
        self, acks: dict[bytes, Vector | None], known: Vector, members: Collection[bytes]
    ) -> None:
        for member, told in acks.items():
            if member not in members:
                continue
            theirs = known if told is None else told
            _bounded(vector.join(self._index.peer_known(member), theirs))
            self._index.join_peer(member, theirs)
            self._heard_acks[member] = vector.join(self._heard_acks.get(member, {}), theirs)


def acceptable(path: bytes, body: bytes) -> bool:
    """Say whether a peer would take this entry.

    Joined of what several hostile members told, an entry can outgrow what one may tell: then
    this one path is left out and logged, and all others go on (isolation).
    """
    if len(body) <= SURELY_FINE:
        return True
    try:
        valid(decode(body))
        if len(path) + len(body) > limits.CONTROL_FRAME - SURELY_FINE:
            raise ValueError("an entry larger than a message")
    except ValueError as error:
        logger.error("%s is told to nobody: %s", paths.printable(path[:200]), error)
        return False
    return True


def _not_too_deep(page: Iterable[bytes]) -> None:
    """Refuse a page that would make directories without number: each path may imply 999."""
    above: set[bytes] = set()
    size = 0
    for path in page:
        directory = paths.parent(path)
        while directory and directory not in above:
            above.add(directory)
            size += len(directory)
            directory = paths.parent(directory)
        if size > limits.DIRECTORY_BYTES:
            raise RemoteProtocolError("a page of paths that are too deep")


def _bounded(*vectors: Vector) -> None:
    if any(len(one) > limits.AUTHORS for one in vectors):
        raise RemoteProtocolError("a vector with too many authors")
