"""New contents, made complete and verified under `.p2psync/staging` before they are shown.

What a name there may hold is known from the name alone, so a start after a crash needs no
other memory (`recover` in `fs.root`):

    new-3f9ac0d1e2b45678              made by us of content that is elsewhere: may be removed
    old-3f9ac0d1e2b45678-report.txt   may be a person's bytes: goes into the history
    path-3f9ac0d1e2b45678             where the object of the same number belongs, see `place`
    <64 hex digits>.part              a large file being assembled: stays, transfers resume

Nothing here is ever a second name of a live file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from blake3 import blake3

from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row, Signature
from p2psync.core.problem import Problem, Reason
from p2psync.errors import IntegrityError
from p2psync.fs import syscalls
from p2psync.fs.ground import ABSENT, Ground, problem_of, signature_of
from p2psync.fs.history import History

NEW: Final = b"new-"
OLD: Final = b"old-"
RECORD: Final = b"path-"
PART: Final = b".part"
PIECE: Final = 1 << 20
ZEROS: Final = bytes(PIECE)
LOST: Final = "the disk lost what was staged; it will be fetched again"
_BASE_BYTES: Final = 100  # of the name an old- object had


_numbers: Final = itertools.count(secrets.randbits(64))


def new_name() -> bytes:
    """Return a name for something made by us; short and of fixed length (fault G02).

    Numbers go on from a random one of this process, so no start meets another's: a random
    number for each costs a system call.
    """
    return NEW + b"%016x" % (next(_numbers) % 2**64)


def old_name(number: bytes, base: bytes) -> bytes:
    """Return the name under which what had the name `base` may come here."""
    return OLD + number + b"-" + base[:_BASE_BYTES]


def number_of(name: bytes) -> bytes:
    """Return the number in any name here but that of a partial."""
    return name.split(b"-", 2)[1]


class Prepared(NamedTuple):
    """Something complete and verified in staging, ready to be put in place once.

    name: in staging. signature: as it was made. epoch: of the root's disk; content staged
    before a failed sync is not put in place (fault I13).
    """

    name: bytes
    place: Place
    signature: Signature
    epoch: int


class Staging(Ground):
    """A root in which new contents can be prepared.

    The prepare methods return a `Problem` for trouble with the disk, with the place's home
    as its path; they raise IntegrityError for bytes that are not what they were said to be.
    What they return is not durable before `sync` or `sync_file`.
    """

    def __init__(self, path: bytes, fd: int, staging: int, history: int) -> None:
        super().__init__(path, fd)
        self.staging = staging
        self.history = History(history, self.owner)
        self.epoch = 0

    def prepare_bytes(self, content: bytes, data: bytes, place: Place) -> Prepared | Problem:
        """Stage a small file.

        Raises:
            IntegrityError: the data does not hash to content.
        """
        if blake3(data).digest() != content:
            raise IntegrityError("the bytes of a file are not those that were announced")
        return self._file(place, lambda file: syscalls.write(file, data, 0))

    def prepare_again(self, prepared: Prepared, place: Place) -> Prepared | Problem:
        """Stage a second copy of what was prepared and has not been put in place."""
        try:
            file = syscalls.open_beneath(self.staging, prepared.name, os.O_RDONLY)
        except OSError as error:
            return _unreadable(place.home, error)
        return self._copy(file, place.home, place)

    def prepare_copy(self, source: bytes, place: Place, expect: Row) -> Prepared | Problem:
        """Stage a copy of the bytes of another path, if they are what its row says.

        A problem that is the source's has the source as its path.
        """
        try:
            with self.at(source) as at:
                if expect.signature is not None and at.look() != expect.signature:
                    return _changed(source)
                file = syscalls.open_beneath(at.fd, at.name, os.O_RDONLY)
        except OSError as error:
            return _unreadable(source, error)
        return self._copy(file, source, place)

    def prepare_history(self, name: bytes, place: Place) -> Prepared | Problem:
        """Stage a copy of the bytes of a file in the history."""
        try:
            file = self.history.open(name)
        except OSError as error:
            return _unreadable(place.home, error)
        return self._copy(file, place.home, place)

    def prepare_aside(self, path: bytes, row: Row) -> Prepared | Problem:
        """Stage a copy of what stands at a path, which is about to be displaced.

        A copy (blocks are shared where the filesystem can): the path never shows nothing, and
        a crash finds it as it was.
        """
        if row.place.kind is Kind.LINK:
            return self.prepare_link(row.place)
        if row.place.kind is Kind.DIRECTORY:
            return self.prepare_directory(row.place)
        return self.prepare_copy(path, row.place, row)

    def prepare_link(self, place: Place) -> Prepared | Problem:
        """Stage a symbolic link, its target verbatim.

        Raises:
            IntegrityError: the target does not hash to the content.
        """
        if blake3(place.link).digest() != place.content:
            raise IntegrityError("the target of a link is not the one that was announced")
        return self._object(place, lambda n: syscalls.symlink(self.staging, n, place.link))

    def prepare_directory(self, place: Place) -> Prepared | Problem:
        """Stage an empty directory."""
        return self._object(place, lambda n: syscalls.make_directory(self.staging, n, 0o777))

    def discard(self, prepared: Prepared) -> None:
        """Remove what was prepared, if it has not been put in place."""
        with contextlib.suppress(OSError):
            if prepared.place.kind is Kind.DIRECTORY:
                syscalls.remove_directory(self.staging, prepared.name)
            else:
                syscalls.unlink(self.staging, prepared.name)

    def mode_for(self, executable: bool, mode: int | None = None) -> int:
        """Return a mode like that of a file made here, or like `mode`, but for execution.

        Whoever may read may execute. Never setuid, setgid or sticky.
        """
        plain = (self.traits.mode if mode is None else mode) & 0o666
        return plain | (plain & 0o444) >> 2 if executable else plain

    # ------------------------------------------------------------------ below the surface

    def finish_file(self, file: int, name: bytes, place: Place) -> Prepared:
        """Give an open, complete file in staging its owner, mode and mtime. Raises OSError."""
        self.own(self.staging, name)
        if self.traits.executable:
            syscalls.set_mode(file, self.mode_for(place.executable))
        syscalls.set_mtime(file, place.mtime_ns)
        return Prepared(name, place, signature_of(os.fstat(file)), self.epoch)

    def _file(self, place: Place, fill: Callable[[int], None]) -> Prepared | Problem:
        name = new_name()
        try:
            file = syscalls.create(self.staging, name)
        except OSError as error:
            return problem_of(place.home, error)
        try:
            fill(file)
            return self.finish_file(file, name, place)
        except OSError as error:
            self._drop(name)
            return problem_of(place.home, error)
        except IntegrityError:
            self._drop(name)
            raise
        finally:
            os.close(file)

    def _object(self, place: Place, make: Callable[[bytes], None]) -> Prepared | Problem:
        name = new_name()
        try:
            make(name)
            self.own(self.staging, name)
            status = os.stat(name, dir_fd=self.staging, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.EPERM and place.kind is Kind.LINK:
                return Problem(place.home, Reason.NOT_REPRESENTABLE, "no links here")
            return problem_of(place.home, error)
        return Prepared(name, place, signature_of(status), self.epoch)

    def _drop(self, name: bytes) -> None:
        with contextlib.suppress(OSError):
            syscalls.unlink(self.staging, name)

    def _copy(self, source: int, path: bytes, place: Place) -> Prepared | Problem:
        """Copy from an open file, which is closed, verifying what was copied."""
        try:
            if not stat.S_ISREG(os.fstat(source).st_mode):
                return _changed(path)
            return self._file(place, lambda file: copy_verified(source, file, place.content))
        except IntegrityError:
            return _changed(path)
        finally:
            os.close(source)


def _changed(path: bytes) -> Problem:
    return Problem(path, Reason.CHANGING, "it is not what it was when it was last looked at")


def _unreadable(path: bytes, error: OSError) -> Problem:
    return _changed(path) if error.errno in ABSENT else problem_of(path, error, reading=True)


def pieces_of(file: int) -> Iterator[bytes]:
    """Yield the bytes of an open file from its start, a megabyte at a time. Raises OSError."""
    offset = 0
    while piece := os.pread(file, PIECE, offset):
        yield piece
        offset += len(piece)


def content_of(file: int) -> bytes:
    """Return the BLAKE3-256 of an open file's bytes. Raises OSError."""
    hasher = blake3()
    for piece in pieces_of(file):
        hasher.update(piece)
    return hasher.digest()


def copy_verified(source: int, target: int, content: bytes) -> None:
    """Fill an empty file with another's bytes, sharing blocks where possible, keeping holes.

    Raises:
        IntegrityError: what was copied does not hash to content.
        OSError: reading or writing failed.
    """
    if syscalls.clone(source, target):
        found = content_of(target)
    else:
        hasher, offset = blake3(), 0
        for piece in pieces_of(source):
            hasher.update(piece)
            if piece != ZEROS[: len(piece)]:
                syscalls.write(target, piece, offset)
            offset += len(piece)
        syscalls.hold_size(target, offset)
        found = hasher.digest()
    if found != content:
        raise IntegrityError("a local file is not what it was when it was last looked at")
