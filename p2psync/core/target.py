"""The view of a few paths, kept up with the changes made to their entries.

Gives exactly what `core.view.view` gives over all entries, without looking at all of them. Two
things reach from one path to another, and both leave a mark in the index:

- A conflict copy claims names; a change at a name that somebody claims, or of an entry that
  claims some, hands the names of all homes involved out anew.
- A path below which something lives is a directory. Where the entry itself says so (nearly
  always) nothing is kept. An *implicit* directory is marked by a claim of the path on its own
  name that is not placed, so "does something live below this file?" is answered by the claims
  that were read anyway, and the index is only searched when a directory or the last of its
  children goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2psync.core.entry import EMPTY, Entry
from p2psync.core.index import Claim, Place, Reader
from p2psync.core.overlay import Overlay, is_directory, lives
from p2psync.core.paths import ancestors, parent
from p2psync.core.view import Copy, Names, claim_names, split

NOBODY: Final = (0, 0)


class Target(Overlay):
    """An overlay that knows what the view wants at a path."""

    def __init__(self, reader: Reader, spare_author: int) -> None:
        super().__init__(reader, spare_author)
        self._affected: set[bytes] = set()
        self._shown: dict[bytes, tuple[Entry | None, Names, Mapping[bytes, Place]]] = {}

    # ------------------------------------------------------------------------- answers

    def want(self, path: bytes) -> Place | None:
        """Return what the view wants at the path, after the changes so far; None: nothing."""
        if self._dirty:
            self._catch_up()
        return self._wanted(path)

    def shown(self, home: bytes) -> Mapping[bytes, Place]:
        """Return where the view shows the values of the entry at `home`, by path."""
        if self._dirty:
            self._catch_up()
        entry, names = self._get(home), self.names_of(home)
        kept = self._shown.get(home)
        if kept is not None and kept[0] is entry and kept[1] is names:
            return kept[2]
        places = self._places(home)
        if names:  # asked again for each of the copies: a thousand must not cost a million
            self._shown[home] = entry, names, places
        return places

    def _places(self, home: bytes) -> dict[bytes, Place]:
        top, copies = self._split(home)
        places = {} if top is None else {home: top}
        if copies:
            by_dot = {copy.dot: copy.place for copy in copies}
            for name, claims in self.names_of(home).items():
                for claim in claims:
                    if claim.placed:
                        places[name] = by_dot[claim.dot]
        return places

    def _wanted(self, path: bytes) -> Place | None:
        entry = self._get(path)
        claims = self._claims[path]
        if lives(entry) or claims:
            top, _ = self._split(path)
            if top is not None:
                return top
        for claim in claims:
            if claim.placed:
                return self.shown(claim.home).get(path)
        return None

    def _split(self, path: bytes) -> tuple[Place | None, list[Copy]]:
        entry = self._get(path)
        return split(path, EMPTY if entry is None else entry, path in self._names[path])

    def _is_marked(self, path: bytes) -> bool:
        return path in self.names_of(path)

    def _mark(self, path: bytes, marked: bool) -> None:
        names = {name: claims for name, claims in self.names_of(path).items() if name != path}
        if marked:
            names[path] = [Claim(path, NOBODY, 0, placed=False)]
        self._set_names(path, names)

    # ----------------------------------------------------------------------- catching up

    def _catch_up(self) -> None:
        """Bring marks and claims up to the entries changed since the last time."""
        dirty, self._dirty = self._dirty, {}
        remarked = self._update_marks(dirty)
        homes: set[bytes] = set()
        for path in dirty:
            names, claims = self._names[path], self._claims[path]
            entry = self._entries[path]
            if names or claims or (entry is not None and len(entry.live) > 1):
                remarked.add(path)
        for path in remarked:
            if self._names[path] or len(self.entry(path).live) > 0:
                homes.add(path)
            homes.update(claim.home for claim in self._claims[path])
        self._affected.update(dirty)
        self._affected.update(remarked)
        self._name_copies(homes)

    def _name_copies(self, homes: set[bytes]) -> None:
        """Hand out the names of the copies of these homes, and of all that meet them there."""
        if not homes:
            return
        while True:
            self.load(homes)
            copies = [(home, copy) for home in sorted(homes) for copy in self._split(home)[1]]
            claimed = claim_names(copies, self._is_ordinary)
            met = {
                claim.home
                for home in homes
                for name in (*self._names[home], *claimed.get(home, ()))
                for claim in self.claims_on(name)
            }
            if met <= homes:
                break
            homes |= met
        for home in homes:
            names: Names = claimed.get(home, {})
            self._affected.update(self._names[home], names)
            if self._is_marked(home):
                names[home] = self._names[home][home]
            self._set_names(home, names)

    def _is_ordinary(self, path: bytes) -> bool:
        """Say whether something other than a conflict copy stands at the path in the view."""
        return lives(self._get(path)) or self._is_marked(path)

    # ------------------------------------------------------------------ implicit directories

    def _update_marks(self, dirty: dict[bytes, Entry | None]) -> set[bytes]:
        """Mark the implicit directories among and above the changed; return where it changed.

        Births first: they only add marks, and all later questions are about the final entries.
        """
        remarked: set[bytes] = set()
        lost: list[bytes] = []
        unmade: list[bytes] = []
        sound: set[bytes] = set()  # directories seen to, so that siblings need not climb
        for path, was in dirty.items():
            now = self._entries[path]
            if is_directory(now):
                if path in self._names[path]:
                    self._mark(path, False)
                    remarked.add(path)
            elif is_directory(was):
                unmade.append(path)
            if lives(now) != lives(was):
                if lives(was):
                    lost.append(path)
                else:
                    self._mark_above(path, sound, remarked)
        if lost or unmade:
            born = self._above_changed()
            for path in unmade:
                if self._holds_life(path, born) != self._is_marked(path):
                    self._mark(path, not self._is_marked(path))
                    remarked.add(path)
            self._unmark_above(lost, born, remarked)
        return remarked

    def _mark_above(self, path: bytes, sound: set[bytes], remarked: set[bytes]) -> None:
        """Something came to life at the path: there are directories all the way up."""
        path = parent(path)
        while path and path not in sound:
            sound.add(path)
            entry = self._get(path)
            if is_directory(entry) or self._is_marked(path):
                return  # then all above it are directories, or will be when its turn comes
            self._mark(path, True)
            remarked.add(path)
            if lives(entry):
                return
            path = parent(path)

    def _unmark_above(
        self, lost: Iterable[bytes], born: set[bytes], remarked: set[bytes]
    ) -> None:
        """Something died at each of these paths: implicit directories above may end."""
        still: set[bytes] = set()
        for path in lost:
            path = parent(path)
            while path and path not in still:
                if not self._is_marked(path):
                    break  # a real directory, or ended already on behalf of a sibling
                if self._holds_life(path, born):
                    still.add(path)
                    break
                self._mark(path, False)
                remarked.add(path)
                if lives(self._get(path)):
                    break
                path = parent(path)

    def _above_changed(self) -> set[bytes]:
        """Return the directories above the changed paths that live."""
        above: set[bytes] = set()
        for path in self._stored:
            if lives(self._entries[path]) and parent(path) not in above:
                above.update(ancestors(path))
        return above

    def _holds_life(self, path: bytes, born: set[bytes]) -> bool:
        """Search the index for something below the path that lives and was not ended here."""
        if path in born:
            return True
        for below in self.reader.live_below(path):
            if below not in self._stored or lives(self._entries[below]):
                return True
        return False
