"""A large file assembled chunk by chunk in staging, over any number of starts.

Nothing on the disk is believed because it was written once: after a start every chunk is
hashed again where it lies (`lacks`), and the whole file before it is used (`finish`): what this
very process verified and wrote, or read, is hashed on the way, the rest where it lies. The file
grows only by verified chunks, and chunks of zeros stay holes, so a peer cannot make it take
space by announcing a size (faults T23, H10).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from blake3 import blake3

from p2psync.core.index import Place
from p2psync.core.problem import Problem
from p2psync.errors import IntegrityError
from p2psync.fs import syscalls
from p2psync.fs.ground import problem_of
from p2psync.fs.pieces import Chunk, Piece, is_true, is_zeros, joined, pieces_at, read, runs
from p2psync.fs.running import RunningHash
from p2psync.fs.staging import LOST, PART, PIECE, Prepared, Staging, new_name
from p2psync.protocol import limits

_UNCACHED: Final = 64 * limits.MIB  # a file from this size on does not stay in the page cache


class Partial:
    """One large file under way; made by `Root.partial`, to be closed.

    Chunks may be written from several threads at once. Closing keeps what is there.
    """

    def __init__(self, staging: Staging, content: bytes, size: int) -> None:
        """Open what is there; OSError when it cannot be read or is being assembled already."""
        self._staging = staging
        self._name = content.hex().encode() + PART
        self._epoch = staging.epoch
        self._file: int | None = None
        self._closed = False
        self._using = threading.RLock()  # no writer's descriptor is closed under it
        self._running = RunningHash()
        self._zeros: dict[int, bytes] = {}
        self.content = content
        self.size = size
        with contextlib.suppress(FileNotFoundError):
            self._file = syscalls.open_beneath(staging.staging, self._name, os.O_RDWR)
        self._claim()

    def lacks(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Return those chunks whose bytes are not there, after reading all that is.

        Raises:
            OSError: the disk cannot be read.
        """
        if self._file is not None:
            return [chunk for chunk in chunks if not self._has(chunk)]
        listed = list(chunks)  # a chunk of zeros repeats; to hash as many for each takes 0.3 s
        count = Counter(chunk[2] for chunk in listed)
        return [chunk for chunk in listed if count[chunk[2]] == 1 or not self._has(chunk)]

    def check_room(self, chunks: Iterable[Chunk]) -> None:
        """Raise OSError if the disk cannot hold these chunks too.

        So that what does not fit is not begun, and leaves the space to what does. A chunk that
        repeats counts once: it may be zeros, which take none.
        """
        wanted = sum({data: size for _, size, data in chunks}.values())
        disk = os.fstatvfs(self._staging.staging)
        if wanted > disk.f_bavail * disk.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write some chunks; cheapest when neighbours follow each other.

        Raises:
            IntegrityError: a chunk's bytes are others, or it is not this file's: none of the
                pieces has been written.
            OSError: the disk does not take them.
        """
        if not all(is_true(piece) for piece in pieces):
            raise IntegrityError("the bytes of a chunk are not those that were announced")
        if any(offset < 0 or offset + size > self.size for (offset, size, _), _ in pieces):
            raise IntegrityError("a chunk lies outside its file")
        self._store(pieces)

    def take_from(
        self, source: bytes, chunks: Iterable[tuple[int, Chunk]], *, history: bool = False
    ) -> set[int]:
        """Take chunks that a file here already holds, each verified while it is copied.

        Args:
            source: a path of the folder, or a name in the history.
            chunks: where in the source each chunk begins, in bytes, and the chunk; cheapest
                when neighbours follow each other.
            history: the source is a name in the history.

        Returns:
            The offsets (in this file) of the chunks that were taken; the others were not
            what they were believed to be, or the source cannot be read.

        Raises:
            OSError: the disk does not take what was read.
        """
        taken: set[int] = set()
        once = self.size >= _UNCACHED
        try:
            file = self._source(source, history=history)
        except OSError:
            return taken
        try:
            for at, run in runs(chunks):
                pieces = [
                    piece for piece in pieces_at(file, at, run, once=once) if is_true(piece)
                ]
                self._store(pieces)
                taken.update(chunk[0] for chunk, _ in pieces)
        finally:
            os.close(file)
        return taken

    def settle(self) -> None:
        """Do beforehand what `finish` would take long for: read the rest, wait for the disk.

        Raises:
            OSError: the disk does not keep what was written, and all of it is removed.
        """
        with self._using:
            file = self._opened()
            self._hash(file)
            try:
                syscalls.fsync(file)
            except OSError:  # said once; the kernel then calls the lost bytes written (I13)
                self.remove()
                raise

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes of what is there; fewer at the end, zeros where nothing is yet."""
        return b"" if self._file is None else os.pread(self._file, size, offset)

    def finish(self, place: Place) -> Prepared | Problem:
        """Verify the whole and make it ready to be put in place; this partial is then gone.

        Raises:
            IntegrityError: it is not what was announced, though its chunks were: what is
                there is worth nothing and has been removed.
        """
        try:
            file = self._opened()
            if self._hash(file) != self.content:
                self.remove()
                raise IntegrityError("a file is not what was announced, though its chunks are")
            prepared = self._staging.finish_file(file, self._name, place)
            prepared = prepared._replace(name=new_name())
            directory = self._staging.staging
            syscalls.rename(directory, self._name, directory, prepared.name)
        except OSError as error:
            return problem_of(place.home, error)
        self.close()
        return prepared

    def close(self) -> None:
        """Close it and keep what is there for the next time; nothing is written after that."""
        with self._using:
            self._closed = True
            file, self._file = self._file, None
            if file is not None:
                os.close(file)

    def remove(self) -> None:
        """Close it and remove what is there: nobody wants this content any more."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            syscalls.unlink(self._staging.staging, self._name)

    # ------------------------------------------------------------------ below the surface

    def _store(self, pieces: Sequence[Piece]) -> None:
        """Write chunks that are true; those of zeros stay holes."""
        put = syscalls.write_uncached if self.size >= _UNCACHED else syscalls.write
        with self._using:
            file = self._opened()
            solid = [
                (chunk, data)
                for chunk, data in pieces
                if not (is_zeros(data) and self._is_hole(file, chunk[0], chunk[1]))
            ]
            for offset, together in joined(solid):
                put(file, together, offset)
        for (offset, _, _), data in pieces:
            self._running.add(offset, data)

    def _hash(self, file: int) -> bytes:
        syscalls.hold_size(file, self.size)
        if self.size >= _UNCACHED:
            return self._running.digest(lambda at: syscalls.read_uncached(file, PIECE, at))
        return self._running.digest(lambda at: os.pread(file, PIECE, at))

    def _opened(self) -> int:
        if self._epoch != self._staging.epoch:
            raise OSError(errno.EIO, LOST)
        with self._using:
            if self._closed:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            if self._file is None:
                self._file = syscalls.create(self._staging.staging, self._name)
                self._claim()
            return self._file

    def _claim(self) -> None:
        """Refuse to be the second that assembles this content: one finishes under the other."""
        if self._file is not None:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise
            except OSError as error:
                if error.errno not in syscalls.NOT_SUPPORTED | {errno.ENOLCK}:
                    raise

    def _source(self, source: bytes, *, history: bool) -> int:
        if history:
            return self._staging.history.open(source)
        return syscalls.open_beneath(self._staging.fd, source, os.O_RDONLY)

    def _has(self, chunk: Chunk) -> bool:
        offset, size, wanted = chunk
        if self._file is None or self._is_hole(self._file, offset, size):
            if size not in self._zeros:
                self._zeros[size] = blake3(bytes(size)).digest()
            if self._zeros[size] != wanted:
                return False
            data = bytes(size)
        else:
            data = read(self._file, offset, size).ljust(size, b"\0")
            if not is_true((chunk, data)):
                return False
        self._running.add(offset, data)
        return True

    def _is_hole(self, file: int, offset: int, size: int) -> bool:
        """Say whether nothing was ever written to this part; it reads as zeros then."""
        try:
            return os.lseek(file, offset, os.SEEK_DATA) >= offset + size
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here on, or beyond the end
                return True
            if error.errno == errno.EINVAL:  # a filesystem that does not say
                return False
            raise
