"""Putting in place: every effect on what a person sees, one path at a time (design 6).

Promises: atomic-visibility, no-blind-destroy, confinement. The order of every act is

1. look: is the place as its row says? If not, nothing is done: `Surprised`.
2. act in one step: an exchange, a rename that never replaces, a rename into staging.
3. look at what was displaced. Only then is it known what it is, for between 1 and 2 a person
   may have saved. If it is not what the row says it is put back, in one step too.
4. what was displaced goes into the history; nothing that a person may have written is ever
   unlinked.

A process that dies between two steps leaves the displaced object in staging under an `old-`
name, which says that it may be a person's bytes (`recover`). Where an act leaves a path empty
for a moment (filesystems without exchange, a move onto something) a *record* beside it, made
before, says where it belongs, so that this is not taken for a delete (fault L04).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Final, NamedTuple

from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Signature
from p2psync.core.problem import Problem, Reason
from p2psync.fs import syscalls
from p2psync.fs.displace import Displacing
from p2psync.fs.ground import (
    ABSENT,
    At,
    Surprised,
    kind_of,
    look_at,
    problem_of,
    signature_of,
    unmoved,
)
from p2psync.fs.staging import LOST, Prepared, new_name, number_of, old_name

_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})
_TRIES: Final = 3
_REMOVED: Final = "what was staged has been removed"


class Done(NamedTuple):
    """The path shows what was wanted.

    signature: what a look says of it; None when it must be looked at again before it is
    believed (it was changed just now, or may have been), or nothing should stand there.
    history: the name under which what was displaced is kept; None when nothing was, or when
    it is still in staging because the history could not take it.
    """

    signature: Signature | None
    history: bytes | None = None


Outcome = Done | Surprised | Problem


class Placing(Displacing):
    """A root in which what was prepared can be put in place.

    Every method returns `Done`, `Surprised` (scan the path it names), or a `Problem`. After
    the latter two the disk is as it was, and what was prepared still is.
    """

    def put(self, prepared: Prepared, path: bytes, row: Row | None) -> Outcome:
        """Put what was prepared at a path where `row` stands; None: where nothing does.

        A directory in the way must be empty. A file replaced keeps its permissions, but for
        execution.
        """
        if prepared.epoch != self.epoch:
            return Problem(path, Reason.IO_ERROR, LOST)
        if row is None:
            return self._acting(path, lambda at: self._put_new(prepared, at))
        return self._acting(path, lambda at: self._replace(prepared, at, row))

    def move(
        self, source: bytes, path: bytes, row: Row, place: Place, target_row: Row | None = None
    ) -> Outcome:
        """Rename what `row` says stands at `source`, then give it the metadata of `place`.

        target_row: what stands at the path and is displaced; None: nothing does.
        """
        return self._acting(
            source,
            lambda origin: self._acting(
                path, lambda at: self._move(origin, at, row, place, target_row)
            ),
        )

    def remove(self, path: bytes, row: Row) -> Outcome:
        """Take the file or link that `row` says out of the folder, into the history."""
        if row.place.kind is Kind.DIRECTORY:
            return self.remove_directory(path, row)
        return self._acting(path, lambda at: self._remove(at, row))

    def make_directory(self, path: bytes) -> Outcome:
        """Make a directory; one that is there already will do."""
        return self._acting(path, self._make_directory)

    def remove_directory(self, path: bytes, row: Row) -> Outcome:
        """Remove an empty directory; Problem NOT_EMPTY otherwise."""
        return self._acting(path, lambda at: self._remove_directory(at, row))

    def set_metadata(self, path: bytes, place: Place, row: Row) -> Outcome:
        """Give the file that `row` says the mtime and executable bit of `place`.

        Done without a signature: it must be looked at again, for a write in that very moment
        would have lost its mtime. RACE: but for that nothing shows.
        """
        return self._acting(path, lambda at: self._set_metadata(at, place, row))

    # ------------------------------------------------------------------ new

    def _put_new(self, prepared: Prepared, at: At) -> Outcome:
        fitted = self._fit(prepared, None)
        if fitted is None:
            return Problem(at.path, Reason.IO_ERROR, _REMOVED)
        try:
            self.rename_new(self.staging, fitted.name, at.fd, at.name)
        except FileExistsError:
            return at.surprise()
        return Done(self._shown(at, fitted.signature))

    def _make_directory(self, at: At) -> Outcome:
        try:
            syscalls.make_directory(at.fd, at.name, 0o777)
        except FileExistsError:
            found = at.look()
            if found is None or not stat.S_ISDIR(found.mode):
                return Surprised(at.path, found)
            return Done(found)
        self.own(at.fd, at.name)
        return Done(at.look())

    # ------------------------------------------------------------------ replace

    def _replace(self, prepared: Prepared, at: At, row: Row) -> Outcome:
        before = self._as_row(at, row)
        if before is None:
            return at.surprise()
        if row.place.kind is Kind.DIRECTORY:
            if prepared.place.kind is Kind.DIRECTORY:
                self.discard(prepared)
                return Done(before)
            if not _is_empty(at):
                return Problem(at.path, Reason.NOT_EMPTY)
        fitted = self._fit(prepared, before)
        if fitted is None:
            return Problem(at.path, Reason.IO_ERROR, _REMOVED)
        old = old_name(number_of(fitted.name), at.name)
        syscalls.rename(self.staging, fitted.name, self.staging, old)
        try:
            outcome = self._swap(old, at, row, before)
        except OSError:
            self._to_new(old, fitted, at.path)
            raise
        if isinstance(outcome, Done):
            return outcome._replace(signature=self._shown(at, fitted.signature))
        self._to_new(old, fitted, at.path)
        return outcome

    def _to_new(self, old: bytes, fitted: Prepared, path: bytes) -> None:
        """After a swap that did not happen: what we made is again known to be only that."""
        found = look_at(self.staging, old)
        if found is not None and unmoved(fitted.signature, found):
            syscalls.rename(self.staging, old, self.staging, fitted.name)
        elif found is not None:
            self._into_history(old, path)  # somebody wrote to it while it was shown

    def _swap(self, staged: bytes, at: At, row: Row, before: Signature) -> Outcome:
        """Let what is staged (under an old- name) and what stands at the place change places.

        On Done what was displaced has gone into the history. Otherwise, and when it raises
        OSError, what was staged is staged under the same name still or again, unless somebody
        took it away while it was shown.
        """
        if not self.traits.exchange:
            return self._displace(staged, at, row, before)
        try:
            syscalls.exchange(self.staging, staged, at.fd, at.name)
        except OSError as error:
            if error.errno not in syscalls.NOT_SUPPORTED:
                raise
            return self._displace(staged, at, row, before)
        if self._is_expected(staged, row, before):
            if row.place.kind is not Kind.DIRECTORY:
                return Done(None, self._into_history(staged, at.path))
            if self._is_gone(staged):
                return Done(None)
        self._swap_back(staged, at)
        return at.surprise()

    def _swap_back(self, staged: bytes, at: At) -> None:
        """Give a place back what was displaced; whatever is there now comes here instead."""
        for _ in range(_TRIES):
            try:
                syscalls.exchange(self.staging, staged, at.fd, at.name)
            except FileNotFoundError:
                pass
            else:
                return
            try:  # somebody took ours away: the place is free
                self.rename_new(self.staging, staged, at.fd, at.name)
            except FileExistsError:
                continue
            return
        self._into_history(staged, at.path)

    def _displace(self, staged: bytes, at: At, row: Row, before: Signature) -> Outcome:
        """Do what `_swap` does where nothing can be exchanged: the place is empty between."""
        aside = old_name(number_of(new_name()), at.name)
        self._record(aside, at.path, before, durable=True)
        self._take(at, aside)
        empty = row.place.kind is not Kind.DIRECTORY or _is_empty(
            At(at.path, self.staging, aside)
        )
        if not (empty and self._is_expected(aside, row, before)):
            self._give_back(aside, at)
            return at.surprise()
        try:
            self.rename_new(self.staging, staged, at.fd, at.name)
        except FileExistsError:
            self._into_history(aside, at.path)
            self._forget_record(aside)
            return at.surprise()
        except OSError:
            self._give_back(aside, at)
            raise
        kept = self._put_away(aside, at.path)
        self._forget_record(aside)
        return Done(None, kept)

    def _fit(self, prepared: Prepared, displaced: Signature | None) -> Prepared | None:
        """Make the staged file's metadata what it must be where it is about to be shown.

        It was prepared for a place like this one, but perhaps not for this one, and a file
        that only its owner could read must not become readable to others (fault T43).

        Returns:
            What was prepared as it is now; None when somebody removed it.
        """
        place, made = prepared.place, look_at(self.staging, prepared.name)
        if made is None or kind_of(made.mode) is not place.kind:
            return None
        if place.kind is not Kind.FILE:
            return prepared
        kept = displaced.mode if displaced and stat.S_ISREG(displaced.mode) else None
        mode = self.mode_for(place.executable, kept) if self.traits.executable else made.mode
        if stat.S_IMODE(mode) == stat.S_IMODE(made.mode) and place.mtime_ns == made.mtime_ns:
            return prepared if made == prepared.signature else prepared._replace(signature=made)
        file = syscalls.open_beneath(self.staging, prepared.name, os.O_RDONLY)
        try:
            if self.traits.executable:
                syscalls.set_mode(file, mode)
            syscalls.set_mtime(file, place.mtime_ns)
            return prepared._replace(signature=signature_of(os.fstat(file)))
        finally:
            os.close(file)

    # ------------------------------------------------------------------ move

    def _move(
        self, origin: At, at: At, row: Row, place: Place, target_row: Row | None
    ) -> Outcome:
        before = self._as_row(origin, row)
        if before is None:
            return origin.surprise()
        if target_row is None:
            outcome = self._move_new(origin, at, row, before)
        else:
            target = self._as_row(at, target_row)
            if target is None:
                return at.surprise()
            if target_row.place.kind is Kind.DIRECTORY and not _is_empty(at):
                return Problem(at.path, Reason.NOT_EMPTY)
            outcome = self._move_through(
                origin, row, before, lambda old: self._swap(old, at, target_row, target)
            )
        if isinstance(outcome, Done):
            return self._moved(at, row, place, before)._replace(history=outcome.history)
        return outcome

    def _move_new(self, origin: At, at: At, row: Row, before: Signature) -> Outcome:
        if self.traits.noreplace:
            try:
                syscalls.rename_new(origin.fd, origin.name, at.fd, at.name)
            except OSError as error:
                if isinstance(error, FileExistsError):
                    return at.surprise()
                if error.errno not in syscalls.NOT_SUPPORTED:
                    raise
            else:
                return self._check_moved(origin, at, row, before)

        # a rename in two steps must not begin where a person may save between them
        def land(old: bytes) -> Outcome:
            try:
                self.rename_new(self.staging, old, at.fd, at.name)
            except FileExistsError:
                return at.surprise()
            return Done(None)

        return self._move_through(origin, row, before, land)

    def _check_moved(self, origin: At, at: At, row: Row, before: Signature) -> Outcome:
        if self._still(at, row, before):
            return Done(None)
        try:
            syscalls.rename_new(at.fd, at.name, origin.fd, origin.name)
        except OSError:
            return at.surprise()  # it stays where the scan will find it
        return origin.surprise()

    def _move_through(
        self, origin: At, row: Row, before: Signature, land: Callable[[bytes], Outcome]
    ) -> Outcome:
        """Move through staging, from where `land` brings it to its place.

        What `land` does not bring there goes back.
        """
        old = old_name(number_of(new_name()), origin.name)
        self._record(old, origin.path, before, durable=not self.traits.exchange)
        self._take(origin, old)
        if not self._is_expected(old, row, before):
            self._give_back(old, origin)
            return origin.surprise()
        try:
            outcome = land(old)
        except OSError:
            self._give_back(old, origin)
            raise
        if isinstance(outcome, Done):
            self._forget_record(old)
        else:
            self._give_back(old, origin)
        return outcome

    def _moved(self, at: At, row: Row, place: Place, before: Signature) -> Done:
        shown = self._shown(at, before)
        if shown is None or place.kind is not Kind.FILE or _same_metadata(place, row.place):
            return Done(shown)
        with contextlib.suppress(OSError):  # the scan will see what was not set
            self._set_metadata(at, place, Row(row.place, shown))
        return Done(None)

    # ------------------------------------------------------------------ remove, metadata

    def _remove(self, at: At, row: Row) -> Outcome:
        before = self._as_row(at, row)
        if before is None:
            return at.surprise()
        old = old_name(number_of(new_name()), at.name)
        syscalls.rename(at.fd, at.name, self.staging, old)
        if not self._is_expected(old, row, before):
            self._give_back(old, at)
            return at.surprise()
        return Done(None, self._into_history(old, at.path))

    def _remove_directory(self, at: At, row: Row) -> Outcome:
        if self._as_row(at, row) is None:
            return at.surprise()
        try:
            syscalls.remove_directory(at.fd, at.name)
        except OSError as error:
            if error.errno in _NOT_EMPTY:
                return Problem(at.path, Reason.NOT_EMPTY)
            raise
        return Done(None)

    def _set_metadata(self, at: At, place: Place, row: Row) -> Outcome:
        if row.place.kind is not Kind.FILE:
            return Done(at.look())
        file = syscalls.open_beneath(at.fd, at.name, os.O_RDONLY)
        try:
            if self._as_row(at, row) != signature_of(status := os.fstat(file)):
                return at.surprise()
            mode = self.mode_for(place.executable, status.st_mode)
            if self.traits.executable and mode != stat.S_IMODE(status.st_mode):
                syscalls.set_mode(file, mode)
            syscalls.set_mtime(file, place.mtime_ns)
        finally:
            os.close(file)
        return Done(None)

    def _acting(self, path: bytes, act: Callable[[At], Outcome]) -> Outcome:
        try:
            with self.at(path) as at:
                try:
                    return act(at)
                except OSError as error:
                    return at.surprise() if error.errno in ABSENT else problem_of(path, error)
        except OSError as error:
            if error.errno in ABSENT:
                return Surprised(path, None)
            return problem_of(path, error)


def _is_empty(at: At) -> bool:
    fd = syscalls.open_beneath(at.fd, at.name, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            return next(iter(entries), None) is None
    finally:
        os.close(fd)


def _same_metadata(one: Place, other: Place) -> bool:
    return (one.executable, one.mtime_ns) == (other.executable, other.mtime_ns)
