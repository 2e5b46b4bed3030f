"""Reads what stands at a path so that content and signature belong to one and the same state.

Promises: a file that moves while it is read is never a version (the descriptor that was read
is asked before and after); bytes that could not be read are never hashed as if they were the
end; nothing but regular files is opened; nothing is read through a link. Bytes given out by
`read_file` and `read_chunks` hash to what was asked for, or are not given.

Files are read, not mapped: a mapped file that shrinks kills the process (SIGBUS).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Final, Self

from blake3 import blake3

from p2psync.core.chunking import LARGEST_FILE
from p2psync.core.entry import Kind
from p2psync.core.index import Signature
from p2psync.core.observed import Observed
from p2psync.core.problem import Problem, Reason
from p2psync.fs import syscalls
from p2psync.fs.cutting import ChangingError, read_large
from p2psync.fs.ground import ABSENT, Ground, problem_of, signature_of
from p2psync.fs.pieces import Chunk, is_true, pieces_at, runs
from p2psync.protocol import limits

_WORTH_WAITING: Final = 16 * limits.MIB  # hashing this takes longer than a timestamp's grain
_LONGEST_WAIT_NS: Final = 50_000_000
_READING: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def observe(root: Ground, path: bytes, now_ns: int | None = None) -> Observed | Problem | None:
    """Look at one path: its kind, content, metadata and signature.

    Args:
        root: the opened root.
        path: relative to it; not the root itself.
        now_ns: the wall clock in ns, for tests; by default it is asked.

    Returns:
        None when nothing stands there; a Problem when it cannot be synced now.
    """
    with Parents(root) as parents:
        return _observe(parents, path, now_ns)


def observe_many(
    root: Ground, paths: Iterable[bytes]
) -> list[tuple[bytes, Observed | Problem | None]]:
    """Look at many paths, in order; cheapest when paths of one directory come together."""
    with Parents(root) as parents:
        return [(path, _observe(parents, path, None)) for path in paths]


def read_file(parents: Parents, path: bytes, content: bytes) -> bytes | None:
    """Return a file's bytes if they hash to `content`; None if not, for any reason.

    Up to `limits.WHOLE_FILE`.

    What hashes right is right, so nobody has to know whether it was written to meanwhile.
    """
    try:
        opened = _open_regular(*parents.place(path))
        if opened is None:
            return None
        file, status = opened
        try:
            data = _read(file, min(status.st_size, limits.WHOLE_FILE) + 1)
        finally:
            os.close(file)
    except OSError:
        return None
    return data if blake3(data).digest() == content else None


def read_chunks(root: Ground, path: bytes, wanted: Sequence[Chunk]) -> list[bytes | None]:
    """Return the pieces (offset, size, BLAKE3 hash) of a file; None for each that differs."""
    try:
        with Parents(root) as parents:
            opened = _open_regular(*parents.place(path))
    except OSError:
        opened = None
    if opened is None:
        return [None] * len(wanted)
    file, _ = opened
    try:
        return [
            bytes(piece[1]) if is_true(piece) else None
            for at, run in runs((chunk[0], chunk) for chunk in wanted)
            for piece in pieces_at(file, at, run)
        ]
    finally:
        os.close(file)


def racy(seen: Signature, now_ns: int, grain_ns: int) -> bool:
    """Say whether a write just after this look could leave the signature as it is.

    now_ns: the wall clock when the look began, in ns. A change within `grain_ns` of it may get
    the same timestamps as one afterwards. Times far ahead of the clock (set by `touch`, or the
    clock went back) are not racy: a write now would set others.
    """
    return abs(now_ns - seen.mtime_ns) <= grain_ns or abs(now_ns - seen.ctime_ns) <= grain_ns


def read_whole(directory: int, name: bytes, limit: int) -> bytes | None:
    """Return the bytes of a regular file of an open directory, at most `limit` of them.

    Returns:
        None when it is no regular file, or moved while it was read.

    Raises:
        OSError: it cannot be read.
    """
    opened = _open_regular(directory, name)
    if opened is None:
        return None
    file, status = opened
    try:
        data = _read(file, limit)
        return data if signature_of(os.fstat(file)) == signature_of(status) else None
    finally:
        os.close(file)


class Parents:
    """Opens the directories that paths stand in, keeping the last one open."""

    def __init__(self, root: Ground) -> None:
        self.grain_ns = root.traits.grain_ns
        self._root = root
        self._directory: bytes | None = None
        self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def place(self, path: bytes) -> tuple[int, bytes]:
        """Return the open directory of a path, and its name there; raises OSError."""
        directory, _, name = path.rpartition(b"/")
        if directory != self._directory:
            self._close()
            self._fd = syscalls.open_beneath(
                self._root.fd, directory, os.O_PATH | os.O_DIRECTORY
            )
            self._directory = directory
        return self._fd, name

    def _close(self) -> None:
        if self._directory is not None:
            os.close(self._fd)
            self._directory = None


def _observe(parents: Parents, path: bytes, now_ns: int | None) -> Observed | Problem | None:
    if not path:
        raise ValueError("the root itself is not observed")
    try:
        directory, name = parents.place(path)
    except OSError as error:
        return None if error.errno in ABSENT else problem_of(path, error, reading=True)
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return _observe_file(parents, path, now_ns)
        if stat.S_ISLNK(found.st_mode):
            return _observe_link(parents, path, now_ns)
        if stat.S_ISDIR(found.st_mode):
            return Observed(Kind.DIRECTORY, b"", 0, b"", False, 0, signature_of(found))
    except ChangingError:
        return Problem(path, Reason.CHANGING)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return Problem(path, Reason.CHANGING)  # a link now, and a file a moment ago
        return problem_of(path, error, reading=True)
    return Problem(path, Reason.SPECIAL)


def _observe_link(parents: Parents, path: bytes, now_ns: int | None) -> Observed:
    now_ns = syscalls.now_ns() if now_ns is None else now_ns
    directory, name = parents.place(path)
    before = signature_of(os.stat(name, dir_fd=directory, follow_symlinks=False))
    target = os.readlink(name, dir_fd=directory)
    if signature_of(os.stat(name, dir_fd=directory, follow_symlinks=False)) != before:
        raise ChangingError
    trusted = None if racy(before, now_ns, parents.grain_ns) else before
    return Observed(Kind.LINK, blake3(target).digest(), 0, target, False, 0, trusted)


def _observe_file(
    parents: Parents, path: bytes, now_ns: int | None
) -> Observed | Problem | None:
    began_ns = syscalls.now_ns() if now_ns is None else now_ns
    opened = _open_regular(*parents.place(path))
    if opened is None:
        raise ChangingError  # it was one a moment ago
    file, before = opened
    try:
        if now_ns is None and before.st_size >= _WORTH_WAITING:
            began_ns, before = _settle(file, parents.grain_ns)
        size = before.st_size
        if size > LARGEST_FILE:
            return Problem(path, Reason.TOO_LARGE)
        if size > limits.SMALL_FILE:
            done, content, manifest = read_large(file, before)
        else:
            data = _read(file, size + 1)
            done, content, manifest = len(data), blake3(data).digest(), None
        seen = signature_of(before)
        if signature_of(os.fstat(file)) != seen:
            raise ChangingError
    finally:
        os.close(file)
    if done != size:
        return Problem(path, Reason.IO_ERROR, f"{done} of {size} bytes could be read")
    return Observed(
        Kind.FILE,
        content,
        size,
        b"",
        bool(before.st_mode & stat.S_IXUSR),
        max(-limits.MTIME_NS, min(limits.MTIME_NS, before.st_mtime_ns)),
        None if racy(seen, began_ns, parents.grain_ns) else seen,
        manifest,
    )


def _open_regular(directory: int, name: bytes) -> tuple[int, os.stat_result] | None:
    """Open a file for reading and look at it; None if it is no regular file. Raises OSError."""
    file = os.open(name, _READING, dir_fd=directory)
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode):
        return file, status
    os.close(file)
    return None


def _settle(file: int, grain_ns: int) -> tuple[int, os.stat_result]:
    """Return the time from which on the file is read, in ns, and a look at it then.

    A large file that was written just now is given a moment: then its signature can be
    trusted and it is not read twice, or it shows that the writer has not finished.
    """
    now_ns = syscalls.now_ns()
    before = os.fstat(file)
    recent = racy(signature_of(before), now_ns, grain_ns)
    if not recent or grain_ns > _LONGEST_WAIT_NS:
        return now_ns, before
    time.sleep((2 * grain_ns) / 1e9)
    now_ns, after = syscalls.now_ns(), os.fstat(file)
    if signature_of(after) != signature_of(before):
        raise ChangingError
    return now_ns, after


def _read(file: int, size: int) -> bytes:
    """Read from where the file stands up to `size` bytes, less only at its end.

    One byte less than asked for is taken for the end: callers ask for one more than there is.
    """
    data = os.read(file, size)
    while len(data) < size - 1 and (more := os.read(file, size - len(data))):
        data += more
    return data
