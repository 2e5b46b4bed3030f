"""Keeps what is known of each peer: cursors, vectors, and a full listing under way.

The vectors are kept in memory too once asked for; thousands of components after years are
not read for every mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from p2psync.core.ids import Dot
from p2psync.core.vector import Vector, beyond, join
from p2psync.store.encoding import (
    decode_dots,
    decode_living,
    encode,
    signed,
    unsigned,
)
from p2psync.store.facts import FactsPart

LISTING_LOOK: Final = 512


class Told(NamedTuple):
    """A peer's vectors, as last told by it or of it."""

    known: Vector
    collected: Vector


class PeersPart(FactsPart):
    """The part of an index that holds how far the peers and we have come with each other."""

    _told: dict[bytes, Told]

    # ------------------------------------------------------------------ cursors and vectors

    def cursor(self, peer: bytes) -> tuple[int, int]:
        """Return the peer's start and how far we took its arrivals; (0, 0): not at all."""
        found = self._db.one("SELECT start, arrival FROM cursors WHERE peer = ?", (peer,))
        return (unsigned(found[0]), found[1]) if found else (0, 0)

    def set_cursor(self, peer: bytes, start: int, arrival: int) -> None:
        """Say how far we have taken the peer's arrivals; goes with what was taken."""
        self._db.run(
            "INSERT INTO cursors (peer, start, arrival) VALUES (?, ?, ?) ON CONFLICT (peer)"
            " DO UPDATE SET start = excluded.start, arrival = excluded.arrival",
            (peer, signed(start), arrival),
        )

    def peer_known(self, peer: bytes) -> Vector:
        """Return the peer's knowledge as last told; empty if it never was."""
        return self._told_by(peer).known

    def peer_collected(self, peer: bytes) -> Vector:
        """Return the peer's collected vector as last told; empty if it never was."""
        return self._told_by(peer).collected

    def peers_known(self) -> dict[bytes, Vector]:
        """Return the knowledge of every peer of which anything was told."""
        peers = self._db.all("SELECT DISTINCT peer FROM peer_vectors")
        return {peer: self._told_by(peer).known for (peer,) in peers}

    def join_peer(self, peer: bytes, known: Vector, collected: Vector | None = None) -> None:
        """Add to what the peer is known to know and to have collected."""
        told = self._told_by(peer)
        news = Told(beyond(known, told.known), beyond(collected or {}, told.collected))
        if not news.known and not news.collected:
            return
        with self.transaction():
            self._db.many(
                "INSERT INTO peer_vectors (peer, author, known) VALUES (?, ?, ?)"
                " ON CONFLICT (peer, author) DO UPDATE SET known = excluded.known",
                [(peer, signed(author), seq) for author, seq in news.known.items()],
            )
            self._db.many(
                "INSERT INTO peer_vectors (peer, author, collected) VALUES (?, ?, ?)"
                " ON CONFLICT (peer, author) DO UPDATE SET collected = excluded.collected",
                [(peer, signed(author), seq) for author, seq in news.collected.items()],
            )
            self._told[peer] = Told(
                join(told.known, news.known), join(told.collected, news.collected)
            )

    def forget_peer(self, peer: bytes) -> None:
        """Drop everything kept about a peer; it will be met as a new one."""
        with self.transaction():
            self._db.run("DELETE FROM cursors WHERE peer = ?", (peer,))
            self._db.run("DELETE FROM peer_vectors WHERE peer = ?", (peer,))
            self._db.run("DELETE FROM listing WHERE peer = ?", (peer,))
            self._told.pop(peer, None)

    def _told_by(self, peer: bytes) -> Told:
        told = self._told.get(peer)
        if told is None:
            told = Told({}, {})
            for author, known, collected in self._db.all(
                "SELECT author, known, collected FROM peer_vectors WHERE peer = ?", (peer,)
            ):
                if known:
                    told.known[unsigned(author)] = known
                if collected:
                    told.collected[unsigned(author)] = collected
            self._told[peer] = told
        return told

    # ------------------------------------------------------------------ full listings

    def listing_begin(self, peer: bytes) -> None:
        """Begin to take a full listing of a peer; what an earlier one had told goes."""
        self._db.run("DELETE FROM listing WHERE peer = ?", (peer,))

    def listing_add(self, peer: bytes, items: Iterable[tuple[bytes, list[Dot]]]) -> None:
        """Note paths of the listing with the dots that the peer has live there."""
        with self.transaction():
            self._db.many(
                "INSERT INTO listing (peer, path, live) VALUES (?, ?, ?)"
                " ON CONFLICT (peer, path) DO UPDATE SET live = excluded.live",
                [(peer, path, encode(live)) for path, live in items],
            )

    def listing_missing(self, peer: bytes) -> Iterator[tuple[bytes, list[Dot]]]:
        """Yield, ascending, each path where I have live dots that the listing lacks.

        With it the dots the listing has there: [] when it has not the path. Entries may be
        written while this is read.
        """
        after = b""
        while True:
            found = self._db.all(
                "SELECT entries.path, entries.body, listing.live FROM entries"
                " LEFT JOIN listing ON listing.peer = ? AND listing.path = entries.path"
                " WHERE entries.live = 1 AND entries.path > ?"
                " ORDER BY entries.path LIMIT ?",
                (peer, after, LISTING_LOOK),
            )
            for path, body, live in found:
                listed = [] if live is None else self._db.decoded(decode_dots, live)
                if self._db.decoded(decode_living, body).live.keys() - set(listed):
                    yield path, listed
            if len(found) < LISTING_LOOK:
                return
            after = found[-1][0]

    def listing_end(self, peer: bytes) -> None:
        """Drop the listing."""
        self._db.run("DELETE FROM listing WHERE peer = ?", (peer,))
