"""A large file assembled chunk by chunk in staging, over any number of starts.

Nothing on the disk is believed because it was written once: after a start every chunk is
hashed again where it lies (`lacks`), and the whole file before it is used (`finish`). The file
grows only by verified chunks, and chunks of zeros stay holes, so a peer cannot make it take
space by announcing a size (faults T23, H10).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterable

from blake3 import blake3

from p2psync.core.index import Place
from p2psync.core.problem import Problem
from p2psync.errors import IntegrityError
from p2psync.fs import syscalls
from p2psync.fs.ground import problem_of
from p2psync.fs.staging import LOST, PART, ZEROS, Prepared, Staging, content_of, new_name

Chunk = tuple[int, int, bytes]
"""Offset and size in bytes, BLAKE3-256 of the bytes."""


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
        return [chunk for chunk in chunks if not self._has(chunk)]

    def check_room(self, chunks: Iterable[Chunk]) -> None:
        """Raise OSError if the disk cannot hold these chunks too.

        So that what does not fit is not begun, and leaves the space to what does. A chunk that
        repeats counts once: it may be zeros, which take none.
        """
        wanted = sum({data: size for _, size, data in chunks}.values())
        disk = os.fstatvfs(self._staging.staging)
        if wanted > disk.f_bavail * disk.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, chunk: Chunk, data: bytes) -> None:
        """Write one chunk.

        Raises:
            IntegrityError: the data is not the chunk's, or the chunk not this file's.
            OSError: the disk does not take it.
        """
        offset, size, wanted = chunk
        if len(data) != size or blake3(data).digest() != wanted:
            raise IntegrityError("the bytes of a chunk are not those that were announced")
        if offset < 0 or offset + size > self.size:
            raise IntegrityError("a chunk lies outside its file")
        with self._using:
            file = self._opened()
            if not (_is_zeros(data) and self._is_hole(file, offset, size)):
                syscalls.write(file, data, offset)

    def take_from(
        self, source: bytes, chunks: Iterable[tuple[int, Chunk]], *, history: bool = False
    ) -> set[int]:
        """Take chunks that a file here already holds, each verified while it is copied.

        Args:
            source: a path of the folder, or a name in the history.
            chunks: where in the source each chunk begins, in bytes, and the chunk.
            history: the source is a name in the history.

        Returns:
            The offsets (in this file) of the chunks that were taken; the others were not
            what they were believed to be, or the source cannot be read.

        Raises:
            OSError: the disk does not take what was read.
        """
        taken: set[int] = set()
        try:
            file = self._source(source, history=history)
        except OSError:
            return taken
        try:
            for at, chunk in chunks:
                data = _read_if_possible(file, at, chunk[1])
                with contextlib.suppress(IntegrityError):
                    self.write(chunk, data)
                    taken.add(chunk[0])
        finally:
            os.close(file)
        return taken

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
            syscalls.hold_size(file, self.size)
            if content_of(file) != self.content:
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
            return self._zeros[size] == wanted
        data = _read(self._file, offset, size)
        return blake3(data.ljust(size, b"\0")).digest() == wanted

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


def _read(file: int, offset: int, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end of the file. Raises OSError."""
    parts: list[bytes] = []
    while size and (part := os.pread(file, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def _read_if_possible(file: int, offset: int, size: int) -> bytes:
    try:
        return _read(file, offset, size)
    except OSError:  # a bad sector, or a directory: as good as other bytes
        return b""


def _is_zeros(data: bytes) -> bool:
    return all(
        data[at : at + len(ZEROS)] == ZEROS[: len(data) - at]
        for at in range(0, len(data), len(ZEROS))
    )
