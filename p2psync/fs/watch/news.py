"""What happened in a root: names in watched directories become paths. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from p2psync.core.ignore import OWN_DIRECTORY
from p2psync.fs.scan import RULES_NAME
from p2psync.fs.watch.hint import Hint
from p2psync.fs.watch.settling import Key, Settled


class Place(NamedTuple):
    """Where something is: the watch of its root, and the path below that."""

    root: int
    path: bytes


PlaceOf = Callable[[int], Place | None]
"""Where a watched directory is; None: nowhere any more."""


@dataclass(slots=True)
class News:
    """What happened in one root.

    hint: where to look at once. made: directories to be watched, then looked at whole; for each
    the path it had here before, if it had one, which is looked at together with it. touched:
    directories that perhaps can be watched now. departed: directories that are elsewhere now.
    """

    hint: Hint = field(default_factory=Hint)
    made: dict[Key, bytes | None] = field(default_factory=dict)
    touched: set[Key] = field(default_factory=set)
    departed: set[Key] = field(default_factory=set)

    def join(self, later: News) -> None:
        """Say here what both say."""
        self.hint.join(later.hint)
        self.made |= later.made
        self.touched |= later.touched
        self.departed |= later.departed

    @property
    def moves_watches(self) -> bool:
        """Say whether there are watches to be set or ended."""
        return bool(self.made or self.touched or self.departed)


def by_root(settled: Settled, place_of: PlaceOf) -> dict[int, News]:
    """Return what happened in each root, by its watch; what is in none is left out."""
    news: defaultdict[int, News] = defaultdict(News)
    for place in _places(settled.names, place_of):
        news[place.root].hint.paths.add(place.path)
    for watch in settled.crowded:
        if found := place_of(watch):
            news[found.root].hint.directories.add(found.path)
    for key, source in settled.made.items():
        _add_made(news, key, source, place_of)
    for key in settled.touched:
        if found := _place(key, place_of):
            news[found.root].touched.add(key)
    for key in settled.departed:
        if found := _place(key, place_of):
            news[found.root].departed.add(key)
    for each in news.values():
        hint = each.hint
        hint.rules = RULES_NAME in hint.paths or b"" in hint.directories
    return news


def _add_made(
    news: defaultdict[int, News], key: Key, source: Key | None, place_of: PlaceOf
) -> None:
    place = _place(key, place_of)
    before = _place(source, place_of) if source is not None else None
    if place is not None:
        here = before is not None and before.root == place.root
        news[place.root].made[key] = before.path if here and before else None
    if before is not None and (place is None or before.root != place.root):
        news[before.root].hint.paths.add(before.path)


def _place(key: Key, place_of: PlaceOf) -> Place | None:
    return next(_places((key,), place_of), None)


def _places(keys: Iterable[Key], place_of: PlaceOf) -> Iterator[Place]:
    """Yield where these names are, but for our own directory."""
    for watch, name in keys:
        directory = place_of(watch)
        if directory is not None:
            root, above = directory
            path = above + b"/" + name if above else name
            if path != OWN_DIRECTORY:
                yield Place(root, path)
