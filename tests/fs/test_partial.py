"""Large files, chunk by chunk, over crashes: only verified bytes, and only once."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from p2psync.core.index import Row
from p2psync.core.problem import Problem
from p2psync.errors import IntegrityError
from p2psync.fs import partial as partial_module
from p2psync.fs import syscalls
from p2psync.fs.partial import Partial
from p2psync.fs.pieces import Chunk
from p2psync.fs.root import Done
from tests.support.folder import Folder, die, in_child, place_of

SIZE = 1 << 16


def cut(data: bytes, size: int = SIZE) -> list[Chunk]:
    """Cut bytes into chunks."""
    pieces = [(at, data[at : at + size]) for at in range(0, len(data), size)]
    return [(at, len(piece), blake3(piece).digest()) for at, piece in pieces]


def bytes_of(data: bytes, chunk: Chunk) -> bytes:
    return data[chunk[0] : chunk[0] + chunk[1]]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder.make(tmp_path)
    yield folder
    folder.root.close()


def opened(folder: Folder, data: bytes) -> Partial:
    return folder.root.partial(blake3(data).digest(), len(data))


def test_chunks_in_any_order_make_the_file(folder: Folder) -> None:
    """It is verified as a whole, put in place, and nothing is left of the partial."""
    data = os.urandom(5 * SIZE + 17)
    partial = opened(folder, data)
    chunks = cut(data)
    assert partial.lacks(chunks) == chunks
    for chunk in reversed(chunks):
        partial.write([(chunk, bytes_of(data, chunk))])
    assert partial.lacks(chunks) == []
    assert partial.read_at(10, 20) == data[10:30]
    prepared = partial.finish(place_of(data))
    assert not isinstance(prepared, Problem)
    partial.close()
    put = folder.root.put(prepared, b"x", None)
    assert isinstance(put, Done)
    assert put.signature == folder.root.look(b"x")
    assert folder.shows(b"x") == data
    assert folder.staged() == []


def test_nothing_is_made_before_the_first_verified_chunk(folder: Folder) -> None:
    """T23: an announced size takes no space, and wrong bytes leave no trace."""
    content = b"\7" * 32
    partial = folder.root.partial(content, 2**61)
    for data, chunk in (
        (b"abd", (0, 3, blake3(b"abc").digest())),
        (b"ab", (0, 3, blake3(b"ab").digest())),
        (b"abc", (2**61 - 2, 3, blake3(b"abc").digest())),
        (b"abc", (-1, 3, blake3(b"abc").digest())),
    ):
        with pytest.raises(IntegrityError):
            partial.write([(chunk, data)])
    assert folder.staged() == []
    partial.write([((2**40, 3, blake3(b"abc").digest()), b"abc")])
    status = os.stat(folder.at(b".p2psync/staging/" + folder.staged()[0]))
    assert status.st_blocks * 512 < 2**20
    partial.remove()
    assert folder.staged() == []


@pytest.mark.slow
def test_a_killed_transfer_goes_on_where_it_was(folder: Folder) -> None:
    """After each chunk in turn: what was written is found, what was not is lacking."""
    data = os.urandom(4 * SIZE)
    chunks = cut(data)
    for number in range(len(chunks) + 1):

        def child(number: int = number) -> None:
            partial = opened(folder, data)
            for chunk in partial.lacks(chunks)[: number and 1]:
                partial.write([(chunk, bytes_of(data, chunk))])
            die()

        assert in_child(child) == signal.SIGKILL
        folder.restart()
        assert folder.root.recover() == []
        assert folder.root.partials() == ([blake3(data).digest()] if number else [])
        partial = opened(folder, data)
        assert partial.lacks(chunks) == chunks[number:]
        partial.close()
    partial = opened(folder, data)
    assert not isinstance(partial.finish(place_of(data)), Problem)


def test_b15_bytes_that_rotted_in_staging_are_lacking(folder: Folder) -> None:
    """Nothing is believed because it was written once (L12)."""
    data = os.urandom(3 * SIZE)
    chunks = cut(data)
    partial = opened(folder, data)
    for chunk in chunks:
        partial.write([(chunk, bytes_of(data, chunk))])
    partial.close()
    with open(folder.at(b".p2psync/staging/" + folder.staged()[0]), "r+b") as file:
        file.seek(SIZE + 5)
        file.write(bytes([data[SIZE + 5] ^ 1]))
    again = opened(folder, data)
    assert again.lacks(chunks) == [chunks[1]]
    # and whoever does not ask finds out at the end
    with pytest.raises(IntegrityError):
        again.finish(place_of(data))
    assert folder.staged() == []


def test_h10_zeros_stay_holes(folder: Folder) -> None:
    """They need not be fetched, take no space, and are zeros in the file."""
    data = bytes(8 * SIZE) + os.urandom(SIZE) + bytes(8 * SIZE)
    chunks = cut(data)
    partial = opened(folder, data)
    (lacking,) = partial.lacks(chunks)
    assert lacking[0] == 8 * SIZE
    for chunk in chunks:
        partial.write([(chunk, bytes_of(data, chunk))])
    prepared = partial.finish(place_of(data))
    assert not isinstance(prepared, Problem)
    folder.root.put(prepared, b"x", None)
    assert folder.shows(b"x") == data
    assert os.stat(folder.at(b"x")).st_blocks * 512 <= 3 * SIZE


def test_zeros_replace_wrong_bytes(folder: Folder) -> None:
    """Where something else was written before, a chunk of zeros is written too."""
    data = bytes(SIZE) + os.urandom(SIZE)
    partial = opened(folder, data)
    junk = os.urandom(SIZE)
    partial.write([((0, SIZE, blake3(junk).digest()), junk)])
    for chunk in partial.lacks(cut(data)):
        partial.write([(chunk, bytes_of(data, chunk))])
    assert not isinstance(partial.finish(place_of(data)), Problem)


@pytest.mark.parametrize("data", [b"", b"x", bytes(70_000)], ids=["empty", "byte", "zeros"])
def test_r06_odd_sizes(folder: Folder, data: bytes) -> None:
    """Nothing, one byte, nothing but zeros."""
    partial = opened(folder, data)
    for chunk in partial.lacks(cut(data)):
        partial.write([(chunk, bytes_of(data, chunk))])
    prepared = partial.finish(place_of(data))
    assert not isinstance(prepared, Problem)
    folder.root.put(prepared, b"x", None)
    assert folder.shows(b"x") == data


def test_chunks_that_are_here_already_are_taken(folder: Folder) -> None:
    """From a file of the folder or from the history; those that differ are not."""
    data = os.urandom(4 * SIZE)
    chunks = cut(data)
    folder.stand(b"d/other", data[2 * SIZE :] + b"something else")
    gone = folder.root.remove(b"x", folder.stand(b"x", data[:SIZE]))
    assert isinstance(gone, Done)
    assert gone.history is not None
    partial = opened(folder, data)
    places = [(0, chunks[2]), (SIZE, chunks[3]), (7, chunks[1]), (9 * SIZE, chunks[1])]
    assert partial.take_from(b"d/other", places) == {2 * SIZE, 3 * SIZE}
    assert partial.take_from(gone.history, [(0, chunks[0])], history=True) == {0}
    for source in (b"missing", b"d", b"d/other/x"):
        assert partial.take_from(source, [(0, chunks[1])]) == set()
    assert partial.lacks(chunks) == [chunks[1]]
    partial.close()


def test_one_content_is_assembled_once_at_a_time(folder: Folder) -> None:
    """The second would write into the file that the first has put in place."""
    data = os.urandom(SIZE)
    one = opened(folder, data)
    two = opened(folder, data)
    one.write([(cut(data)[0], data)])
    with pytest.raises(OSError, match="exists"):
        two.write([(cut(data)[0], data)])
    with pytest.raises(BlockingIOError):
        opened(folder, data)
    one.close()
    opened(folder, data).close()


def test_i05_a_full_disk_keeps_what_was_assembled(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the caller's; what is there is there the next time."""
    data = os.urandom(2 * SIZE)
    chunks = cut(data)
    partial = opened(folder, data)
    partial.write([(chunks[0], data[:SIZE])])

    def full(*args: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "write", full)
        with pytest.raises(OSError, match="No space"):
            partial.write([(chunks[1], data[SIZE:])])
        patch.setattr(syscalls, "hold_size", full)
        assert isinstance(partial.finish(place_of(data)), Problem)
    partial.close()
    again = opened(folder, data)
    assert again.lacks(chunks) == [chunks[1]]
    again.close()


def test_a_source_that_shrinks_gives_nothing(folder: Folder) -> None:
    """Fewer bytes than a chunk has are not a chunk."""
    data = os.urandom(SIZE)
    row = folder.stand(b"x", data[:-1])
    partial = opened(folder, data)
    assert partial.take_from(b"x", [(0, cut(data)[0])]) == set()
    assert isinstance(row, Row)
    partial.close()


def test_a_late_write_reaches_no_descriptor_of_somebody_else(folder: Folder) -> None:
    """A thread that still writes when the transfer is given up cannot hit a reused number."""
    data = b"x" * 1000
    content = blake3(data).digest()
    partial = folder.root.partial(content, 2000)
    partial.write([((0, 1000, content), data)])
    partial.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        partial.write([((1000, 1000, content), data)])
    partial.close()

    assert folder.root.partial(content, 2000).lacks([(0, 1000, content)]) == []


@pytest.mark.parametrize("flag", ["taken", "refused"])
def test_a_huge_file_is_written_around_the_page_cache(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    """At whatever offsets its chunks lie, also where the kernel knows no such writes."""
    monkeypatch.setattr(partial_module, "_UNCACHED", 0)
    if flag == "refused":
        real = os.pwritev

        def refusing(file: int, data: list[bytes], offset: int, flags: int = 0) -> int:
            if flags:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return real(file, data, offset)

        monkeypatch.setattr(os, "pwritev", refusing)
    data = os.urandom(7 * 5_000)
    partial = opened(folder, data)
    chunks = cut(data, 5_000)
    partial.write([(chunk, bytes_of(data, chunk)) for chunk in chunks[4:]])
    for chunk in chunks[:4]:
        partial.write([(chunk, bytes_of(data, chunk))])
    prepared = partial.finish(place_of(data))
    assert not isinstance(prepared, Problem)
    folder.root.put(prepared, b"x", None)
    assert folder.shows(b"x") == data


def test_i13_what_the_disk_lost_is_not_kept(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says once that bytes were lost: they are fetched again, not believed."""
    data = os.urandom(SIZE)
    partial = opened(folder, data)
    partial.write([(cut(data)[0], data)])

    def lost(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "fsync", lost)
        with pytest.raises(OSError, match="Input/output"):
            partial.settle()
    assert folder.staged() == []
    again = opened(folder, data)
    assert again.lacks(cut(data)) == cut(data)
    again.write([(cut(data)[0], data)])
    again.settle()
    assert not isinstance(again.finish(place_of(data)), Problem)


def test_what_was_verified_and_written_is_not_read_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole is hashed on the way; what an earlier start left is read, once."""
    data = os.urandom(4 * SIZE)
    chunks = cut(data)
    earlier = opened(folder, data)
    earlier.write([(chunks[1], bytes_of(data, chunks[1]))])
    earlier.close()
    partial = opened(folder, data)
    reads: list[int] = []
    real = os.pread

    def noting(file: int, size: int, offset: int) -> bytes:
        found = real(file, size, offset)
        reads.extend([offset] if found else [])
        return found

    monkeypatch.setattr(os, "pread", noting)
    for chunk in partial.lacks(chunks):
        partial.write([(chunk, bytes_of(data, chunk))])
    assert not isinstance(partial.finish(place_of(data)), Problem)
    assert reads == [SIZE]
