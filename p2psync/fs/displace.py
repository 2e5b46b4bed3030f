"""Taking objects out of their places: looking at them, putting them back or away.

Promises: no-blind-destroy. What stood at a place leaves it only by a rename, and ends in its
place again, or in the history; in between it has an `old-` name in staging.
"""

from __future__ import annotations

import contextlib
import os
import stat

from blake3 import blake3

from p2psync.core.entry import Kind
from p2psync.core.index import Row, Signature
from p2psync.fs import syscalls
from p2psync.fs.ground import At, kind_of, unmoved
from p2psync.fs.staging import (
    RECORD,
    Staging,
    content_of,
    copy_verified,
    new_name,
    number_of,
)


class Displacing(Staging):
    """A root whose objects can be looked at, taken, given back and put away."""

    # ------------------------------------------------------------------ looking

    def _as_row(self, at: At, row: Row) -> Signature | None:
        """Look whether a place is as its row says; None: it is not. Raises OSError."""
        found = at.look()
        if found is None or kind_of(found.mode) is not row.place.kind:
            return None
        if row.place.kind is Kind.DIRECTORY:
            return found
        if row.signature is not None:
            return found if found == row.signature else None
        same = self._content_at(at.fd, at.name, row.place.kind) == row.place.content
        return found if same and at.look() == found else None

    def _still(self, at: At, row: Row, before: Signature) -> bool:
        """Look whether what came to a place is the object seen before, unchanged.

        What cannot be looked at is not.
        """
        try:
            found = at.look()
            if found is None or not unmoved(before, found):
                return False
            if row.place.kind is Kind.DIRECTORY or not self._is_racy(before):
                return True
            return self._content_at(at.fd, at.name, row.place.kind) == row.place.content
        except OSError:
            return False

    def _is_expected(self, staged: bytes, row: Row, before: Signature) -> bool:
        return self._still(At(staged, self.staging, staged), row, before)

    def _content_at(self, directory: int, name: bytes, kind: Kind) -> bytes:
        if kind is Kind.LINK:
            return blake3(os.readlink(name, dir_fd=directory)).digest()
        file = syscalls.open_beneath(directory, name, os.O_RDONLY)
        try:
            return content_of(file)
        finally:
            os.close(file)

    def _is_racy(self, seen: Signature) -> bool:
        """Say whether a write now could leave the object with the mtime it has."""
        return abs(syscalls.now_ns() - seen.mtime_ns) <= self.traits.grain_ns

    def _shown(self, at: At, put: Signature) -> Signature | None:
        """Return the signature of what was put at a place, if it is that and will tell."""
        found = at.look()
        if found is None or not unmoved(put, found):
            return None  # somebody was there since: the scan takes it as their change
        if not stat.S_ISDIR(found.mode) and self._is_racy(found):
            return None
        return found

    def _give_back(self, old: bytes, at: At) -> None:
        """Put an object back where it was, or into the history if something is there now."""
        try:
            self.rename_new(self.staging, old, at.fd, at.name)
        except OSError:
            if self._into_history(old, at.path) is None:
                return  # `recover` will try again, and still knows where it belongs
        self._forget_record(old)

    def _take(self, at: At, old: bytes) -> None:
        """Take what stands at a place into staging, where a record tells of it."""
        try:
            syscalls.rename(at.fd, at.name, self.staging, old)
        except OSError:
            self._forget_record(old)
            raise

    # ------------------------------------------------------------------ putting away

    def _is_gone(self, staged: bytes) -> bool:
        """Remove a displaced directory; False: something came into it, or it is none."""
        try:
            syscalls.remove_directory(self.staging, staged)
        except OSError:
            return False
        return True

    def _put_away(self, staged: bytes, path: bytes) -> bytes | None:
        """Remove an empty directory from staging, or move what is there into the history."""
        return None if self._is_gone(staged) else self._into_history(staged, path)

    def _into_history(self, staged: bytes, path: bytes) -> bytes | None:
        """Move what stood at a path from staging into the history; return its name there.

        None: it stays in staging, where the next `recover` finds it: a full disk must not
        undo what was done.
        """
        try:
            status = os.stat(staged, dir_fd=self.staging, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
                return self._copy_into_history(staged, path, status)
            return self.history.keep(self.staging, staged, path, self.rename_new)
        except OSError:
            return None

    def _copy_into_history(self, staged: bytes, path: bytes, status: os.stat_result) -> bytes:
        """Keep a copy of a file that has other names: a write there must not change it."""
        name = new_name()
        source = syscalls.open_beneath(self.staging, staged, os.O_RDONLY)
        try:
            target = syscalls.create(self.staging, name)
            try:
                copy_verified(source, target, content_of(source))
                syscalls.set_mode(target, status.st_mode)
                syscalls.set_mtime(target, status.st_mtime_ns)
                syscalls.fsync(target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        self.own(self.staging, name)
        kept = self.history.keep(self.staging, name, path, self.rename_new)
        syscalls.unlink(self.staging, staged)
        return kept

    # ------------------------------------------------------------------ records

    def _record(self, old: bytes, path: bytes, seen: Signature, *, durable: bool) -> None:
        """Write down where an object belongs that is about to come here as `old`.

        With its inode: once something else has that name, the record is void.
        """
        name = RECORD + number_of(old)
        file = syscalls.create(self.staging, name)
        try:
            syscalls.write(file, b"%d %s" % (seen.inode, path), 0)
            if durable:
                syscalls.fsync(file)
        finally:
            os.close(file)
        if durable:
            self.sync_staging()

    def sync_staging(self) -> None:
        """Make the names in staging durable. Raises OSError."""
        fd = syscalls.open_beneath(self.staging, b"", os.O_RDONLY | os.O_DIRECTORY)
        try:
            syscalls.fsync(fd)
        finally:
            os.close(fd)

    def _forget_record(self, old: bytes) -> None:
        with contextlib.suppress(OSError):
            syscalls.unlink(self.staging, RECORD + number_of(old))
