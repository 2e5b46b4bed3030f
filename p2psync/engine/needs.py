"""What is needed and can be begun now, as far as it was looked at: a queue, smallest first.

The index holds all needs; this holds some thousand of them, so that the index is asked in bulk
and no need twice. What became needed just now goes to the front: a small edit overtakes a film.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from p2psync.core.entry import Kind
from p2psync.core.index import Want
from p2psync.engine.stock import Stock
from p2psync.protocol import limits


class Sighted(NamedTuple):
    """A need that was looked at. here: it can be applied without asking a peer.

    obstructed: it was in trouble before, and what stands there is not what its row says.
    based: a large file stands there, which it may resemble.
    """

    path: bytes
    want: Want
    here: bool
    obstructed: bool
    based: bool


def sight(
    stock: Stock, needed: Collection[tuple[bytes, Want]], troubled: Collection[bytes]
) -> list[Sighted]:
    """Find out of which of these needs the content stands here; in the worker thread.

    troubled: the paths that could not be applied a while ago.
    """
    applier = stock.applier
    contents = {content for _, want in needed if (content := content_of(want))}
    here = applier.at_hand(contents) if contents else contents
    based = _based(stock, [path for path, want in needed if _may_be_based(want)])
    return [
        Sighted(
            path,
            want,
            (content := content_of(want)) is None or content in here,
            path in troubled and not applier.as_known(path),
            path in based,
        )
        for path, want in needed
    ]


def _may_be_based(want: Want) -> bool:
    place = want.place
    return place is not None and limits.SMALL_FILE < place.size <= limits.WHOLE_FILE


def _based(stock: Stock, paths: list[bytes]) -> set[bytes]:
    rows = stock.index.rows(paths) if paths else {}
    return {path for path, row in rows.items() if row.place.size > limits.SMALL_FILE}


def content_of(want: Want) -> bytes | None:
    """Return the content of the file that is wanted; None: nothing, or something else."""
    place = want.place
    return place.content if place is not None and place.kind is Kind.FILE else None


class Needs:
    """The queue. now: can be applied; small, large: contents to be fetched, and their sizes.

    Small is what travels whole: a file of 500 KiB costs a sixth of what its manifest and chunks
    would, but for one that may be a new version of what is here already.
    """

    def __init__(self) -> None:
        self.now: dict[bytes, Want] = {}
        self.small: dict[bytes, int] = {}
        self.large: dict[bytes, int] = {}
        self._wants: dict[bytes, dict[bytes, Want]] = {}  # by content, by path
        self._queued: dict[bytes, bytes] = {}  # path -> content, of all to be fetched

    def __len__(self) -> int:
        return len(self.now) + len(self._queued)

    def add(self, sighted: Iterable[Sighted], *, first: bool) -> None:
        """Queue needs; first: before all that wait already."""
        small: dict[bytes, int] = {}
        large: dict[bytes, int] = {}
        for path, want, here, _, based in sighted:
            self._forget(path)
            content = content_of(want)
            if here or content is None:
                self.now[path] = want
                continue
            assert want.place is not None  # it has a content
            size = want.place.size
            whole = size <= limits.SMALL_FILE or (size <= limits.WHOLE_FILE and not based)
            (small if whole else large)[content] = size
            self._wants.setdefault(content, {})[path] = want
            self._queued[path] = content
        self.small = small | self.small if first else self.small | small
        self.large = large | self.large if first else self.large | large

    def forget(self, paths: Iterable[bytes]) -> None:
        """Let go of paths that are as wanted, or of which something else may be wanted."""
        for path in paths:
            self._forget(path)

    def _forget(self, path: bytes) -> None:
        self.now.pop(path, None)
        content = self._queued.pop(path, None)
        if content is not None:
            wants = self._wants[content]
            del wants[path]
            if not wants:
                self.take(content)

    def take_now(self, most: int) -> dict[bytes, Want]:
        """Take what can be applied, the first so many."""
        if len(self.now) <= most:
            taken, self.now = self.now, {}
        else:
            taken = {path: self.now.pop(path) for path in list(self.now)[:most]}
        return taken

    def take(self, content: bytes) -> dict[bytes, Want]:
        """Take a content to fetch it; return where it is wanted."""
        self.small.pop(content, None)
        self.large.pop(content, None)
        wants = self._wants.pop(content, {})
        for path in wants:
            del self._queued[path]
        return wants
