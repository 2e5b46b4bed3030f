"""fs.hashing: content and signature are of one state, and nothing else is believed."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from p2psync.core.chunking import LARGEST_FILE, Chunker
from p2psync.core.entry import Kind
from p2psync.core.observed import Observed
from p2psync.core.problem import Problem, Reason
from p2psync.fs import hashing, syscalls
from p2psync.fs.hashing import Parents, observe, observe_many, read_chunks
from p2psync.fs.root import Root
from p2psync.protocol import limits
from tests.support import looking
from tests.support.looking import unprivileged

folder = looking.folder
root = looking.root

LATER_NS = 3_600 * 10**9


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes without structure, the same every time."""
    return blake3(seed.to_bytes(8, "big")).digest(size)


def file(root: Root, path: bytes, now_ns: int | None = None) -> Observed:
    """Observe what must be there and in order."""
    seen = observe(root, path, now_ns)
    assert isinstance(seen, Observed), seen
    return seen


def problem(root: Root, path: bytes) -> Reason:
    """Observe what must be in trouble; return why."""
    seen = observe(root, path)
    assert isinstance(seen, Problem), seen
    assert seen.path == path
    return seen.reason


def read_file(root: Root, path: bytes, content: bytes) -> bytes | None:
    with Parents(root) as parents:
        return hashing.read_file(parents, path, content)


def test_a_small_file(root: Root, folder: Path) -> None:
    """Content, size, metadata and signature are those of the file; it has no manifest."""
    (folder / "x").write_bytes(b"hello")
    (folder / "x").chmod(0o755)
    os.utime(folder / "x", ns=(5, 1_234_567_891))
    seen = file(root, b"x", time.time_ns() + LATER_NS)
    assert seen.content == blake3(b"hello").digest()
    assert (seen.kind, seen.size, seen.link, seen.executable) == (Kind.FILE, 5, b"", True)
    assert (seen.mtime_ns, seen.manifest) == (1_234_567_891, None)
    assert seen.signature == root.look(b"x")


def test_a_directory_and_nothing(root: Root, folder: Path) -> None:
    """A directory has no content; where nothing stands, or could stand, there is None."""
    (folder / "d").mkdir()
    (folder / "x").touch()
    seen = file(root, b"d")
    assert seen[:6] == (Kind.DIRECTORY, b"", 0, b"", False, 0)
    assert seen.signature == root.look(b"d")
    assert observe(root, b"none") is None
    assert observe(root, b"none/x") is None
    assert observe(root, b"x/y") is None
    with pytest.raises(ValueError, match="root itself"):
        observe(root, b"")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param(b"d/file", id="h01-inside"),
        pytest.param(b"nowhere", id="h02-dangling"),
        pytest.param(b"link", id="h03-itself"),
        pytest.param(b"/etc/passwd", id="h04-absolute"),
        pytest.param(b"../../outside", id="h04-outside"),
        pytest.param(b"\xff" + b"x" * 4_094, id="h08-longest-and-not-utf8"),
    ],
)
def test_links_are_text(root: Root, folder: Path, target: bytes) -> None:
    """A link is observed as its target's text, whatever that points to."""
    os.symlink(target, bytes(folder) + b"/link")
    seen = file(root, b"link", time.time_ns() + LATER_NS)
    assert (seen.kind, seen.link, seen.content) == (Kind.LINK, target, blake3(target).digest())
    assert (seen.size, seen.mtime_ns) == (0, 0)
    assert seen.signature == root.look(b"link")


def test_h04_nothing_is_seen_through_a_link(root: Root, folder: Path) -> None:
    """What lies behind a link is not there for us: neither observed nor read."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "secret")
    content = blake3(b"secret").digest()
    assert observe(root, b"link/secret") is None
    assert read_file(root, b"link/secret", content) is None
    assert read_file(root, b"file", content) is None
    assert read_chunks(root, b"file", [(0, 6, content)]) == [None]


def test_h11_special_files_are_not_opened(root: Root, folder: Path) -> None:
    """A fifo nobody writes to and a socket are problems, at once; others go on."""
    os.mkfifo(folder / "fifo")
    (folder / "x").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{root.fd}/socket")
        assert problem(root, b"socket") is Reason.SPECIAL
    assert problem(root, b"fifo") is Reason.SPECIAL
    assert [path for path, seen in observe_many(root, [b"fifo", b"x"]) if seen] == [
        b"fifo",
        b"x",
    ]
    assert read_file(root, b"fifo", blake3(b"").digest()) is None
    assert read_chunks(root, b"fifo", [(0, 0, blake3(b"").digest())]) == [None]


def test_a07_a_fresh_signature_is_not_trusted(root: Root, folder: Path) -> None:
    """Within the timestamps' grain of the look there is no signature; before it there is."""
    (folder / "x").write_bytes(b"x")
    os.symlink("x", folder / "l")
    os.utime(folder / "x", ns=(1, 1))  # an old mtime does not make the change old
    for path in (b"x", b"l"):
        found = root.look(path)
        assert found is not None
        grain_ns = root.traits.grain_ns
        assert file(root, path, found.ctime_ns).signature is None
        assert file(root, path, found.ctime_ns + grain_ns).signature is None
        assert file(root, path, found.ctime_ns - grain_ns).signature is None
        assert file(root, path, found.ctime_ns + grain_ns + 1).signature == found
        # the clock was put back since: a write now would get another time
        assert file(root, path, found.ctime_ns - LATER_NS).signature == found


def test_a07_a_large_fresh_file_is_read_once(root: Root, folder: Path) -> None:
    """A file that takes longer to hash than a timestamp's grain is trusted at first sight."""
    (folder / "x").write_bytes(bytes(17 * limits.MIB))
    assert file(root, b"x").signature == root.look(b"x")


def grow(path: Path) -> None:
    """Write one more byte to a file, and make sure that its times move."""
    with path.open("ab") as writer:
        writer.write(b"!")
    os.utime(path, ns=(0, 77))


@pytest.mark.parametrize("size", [10, 200 * limits.KIB, 10 * limits.MIB])
def test_a09_a_file_that_moves_while_it_is_read(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Bytes read while the file was written are no version; afterwards it is seen whole."""
    (folder / "x").write_bytes(bytes(size))
    for call in ("read", "readv"):
        real: Callable[..., object] = getattr(os, call)

        def read(fd: int, wanted: object, real: Callable[..., object] = real) -> object:
            got = real(fd, wanted)
            grow(folder / "x")
            return got

        monkeypatch.setattr(os, call, read)
    assert problem(root, b"x") is Reason.CHANGING
    monkeypatch.undo()
    assert file(root, b"x").size == (folder / "x").stat().st_size


def test_a09_a_large_file_being_written_is_not_read(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download under way is noticed before its bytes are read."""
    (folder / "x").write_bytes(bytes(17 * limits.MIB))
    written_ns = (folder / "x").stat().st_ctime_ns
    monkeypatch.setattr(syscalls, "now_ns", lambda: written_ns)
    monkeypatch.setattr(time, "sleep", lambda _: grow(folder / "x"))
    monkeypatch.setattr(os, "readv", lambda *_: pytest.fail("it was read"))
    assert problem(root, b"x") is Reason.CHANGING


def test_a09_a_link_that_moves(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link replaced while it is looked at is observed later."""
    os.symlink("one", folder / "l")
    real = os.readlink

    def replace(path: bytes, *, dir_fd: int) -> bytes:
        text = real(path, dir_fd=dir_fd)
        os.symlink("two", folder / "new")
        os.replace(folder / "new", folder / "l")
        return text

    monkeypatch.setattr(os, "readlink", replace)
    assert problem(root, b"l") is Reason.CHANGING


@pytest.mark.parametrize("size", [10, 200 * limits.KIB])
def test_i12_what_cannot_be_read_is_no_version(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A bad sector is the disk's error, and an end before the end is too: nothing is hashed."""
    (folder / "x").write_bytes(bytes(size))

    def bad_sector(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", bad_sector)
        patch.setattr(os, "readv", bad_sector)
        patch.setattr(os, "pread", bad_sector)
        assert problem(root, b"x") is Reason.IO_ERROR
        assert read_file(root, b"x", blake3(bytes(size)).digest()) is None
        assert read_chunks(root, b"x", [(0, 1, blake3(b"\0").digest())]) == [None]
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda *_: b"")
        patch.setattr(os, "readv", lambda *_: 0)
        seen = observe(root, b"x")
        assert seen == Problem(b"x", Reason.IO_ERROR, f"0 of {size} bytes could be read")


def test_i14_short_reads_are_put_together(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that returns less than asked for is continued."""
    data = noise(100)
    (folder / "x").write_bytes(data)
    read, pread = os.read, os.pread
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, min(size, 7)))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7), at))
    content = blake3(data).digest()
    assert file(root, b"x").content == content
    assert read_file(root, b"x", content) == data
    assert read_chunks(root, b"x", [(0, 100, content)]) == [data]


def test_i01_an_unreadable_file(root: Root, folder: Path) -> None:
    """A file that may not be read is a problem, and the others are observed."""
    folder.chmod(0o755)
    (folder / "x").write_bytes(b"x")
    (folder / "x").chmod(0)
    (folder / "y").write_bytes(b"y")
    (folder / "d").mkdir(mode=0)
    with unprivileged():
        assert problem(root, b"x") is Reason.UNREADABLE
        assert problem(root, b"d/z") is Reason.UNREADABLE
        assert file(root, b"y").size == 1


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        limits.SMALL_FILE,
        limits.SMALL_FILE + 1,
        256 * limits.KIB - 1,
        256 * limits.KIB,
        256 * limits.KIB + 1,
        8 * limits.MIB,
        9 * limits.MIB + 1,
    ],
)
def test_r07_manifest_and_content_agree(root: Root, folder: Path, size: int) -> None:
    """The whole hashes to the content, each chunk to its hash, and the sizes add up."""
    data = noise(size)
    (folder / "x").write_bytes(data)
    seen = file(root, b"x")
    assert (seen.size, seen.content) == (size, blake3(data).digest())
    if size <= limits.SMALL_FILE:
        assert seen.manifest is None
        return
    assert seen.manifest is not None
    hashes, sizes = seen.manifest
    assert sizes == Chunker(size).cut(memoryview(data), last=True)
    assert sum(sizes) == size
    at = 0
    for number, chunk in enumerate(sizes):
        expected = hashes[32 * number : 32 * number + 32]
        assert blake3(data[at : at + chunk]).digest() == expected
        assert read_chunks(root, b"x", [(at, chunk, expected)]) == [data[at : at + chunk]]
        at += chunk


def test_o02_a_file_too_large_is_said_to_be(root: Root, folder: Path) -> None:
    """A file larger than a manifest can list is a problem, and not one byte is read."""
    with (folder / "x").open("wb") as sparse:
        sparse.truncate(LARGEST_FILE + 1)
    assert problem(root, b"x") is Reason.TOO_LARGE


def test_b13_only_bytes_that_hash_to_it_are_given(root: Root, folder: Path) -> None:
    """A small file that changed since it was indexed is not given, nor is a larger one."""
    (folder / "x").write_bytes(b"old")
    content = blake3(b"old").digest()
    assert read_file(root, b"x", content) == b"old"
    (folder / "x").write_bytes(b"new")
    assert read_file(root, b"x", content) is None
    (folder / "x").write_bytes(noise(limits.SMALL_FILE + 1))
    assert read_file(root, b"x", content) is None
    (folder / "x").unlink()
    assert read_file(root, b"x", content) is None
    assert read_chunks(root, b"x", [(0, 3, content)]) == [None]


def test_l14_each_chunk_is_verified(root: Root, folder: Path) -> None:
    """Chunks that changed, or lie behind the end, are not given; the others are."""
    (folder / "x").write_bytes(b"aabbcc")
    hashes = [blake3(piece).digest() for piece in (b"aa", b"bX", b"cc", b"cc")]
    wanted = [(0, 2, hashes[0]), (2, 2, hashes[1]), (4, 2, hashes[2]), (5, 2, hashes[3])]
    assert read_chunks(root, b"x", wanted) == [b"aa", None, b"cc", None]
    assert read_chunks(root, b"x", [(9, 2, hashes[0])]) == [None]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"caf\xe9", id="f12-not-utf8"),
        pytest.param(b"a\nb\x1b[31m\t'\"%?#\\", id="f13-control-characters"),
        pytest.param("\u202egnp.exe".encode(), id="f13-right-to-left"),
        pytest.param(b"-rf", id="f13-looks-like-an-option"),
        pytest.param(b"x" * 255, id="g02-longest"),
    ],
)
def test_any_name(root: Root, folder: Path, name: bytes) -> None:
    """A name is bytes: whatever they are, the file is observed and read."""
    Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(b"x")
    assert file(root, name).size == 1
    assert read_file(root, name, blake3(b"x").digest()) == b"x"


@pytest.mark.parametrize(
    "seconds", [0, -1, -(2**31), 2**31, 2**32 + 5, 253_402_300_799], ids=str
)
def test_k07_odd_times(root: Root, folder: Path, seconds: int) -> None:
    """Times before 1970 and far ahead are what the disk has, within what entries can hold."""
    (folder / "x").write_bytes(b"x")
    os.utime(folder / "x", ns=(0, seconds * 10**9))
    stored_ns = (folder / "x").stat().st_mtime_ns
    seen = file(root, b"x", time.time_ns() + LATER_NS)
    assert seen.mtime_ns == max(-limits.MTIME_NS, min(limits.MTIME_NS, stored_ns))
    assert seen.signature == root.look(b"x")


@pytest.mark.slow
def test_g04_deep_and_long_paths(root: Root, folder: Path) -> None:
    """A path of 1,000 directories, longer than a call takes, is observed and read."""
    with looking.deep(folder, "deeper", "x"):
        path = b"deeper/" * 1_000 + b"x"
        assert file(root, path).size == 0
        assert read_file(root, path, blake3(b"").digest()) == b""


def test_observe_many_keeps_the_order(root: Root, folder: Path) -> None:
    """Answers come in the order of the questions, for paths of several directories mixed."""
    paths = []
    for directory in ("a", "b"):
        (folder / directory).mkdir()
        for name in ("1", "2"):
            (folder / directory / name).write_bytes(directory.encode())
            paths.append(f"{directory}/{name}".encode())
    asked = [paths[0], paths[2], b"none", paths[1], b"a/none", paths[3]]
    seen = observe_many(root, asked)
    assert [path for path, _ in seen] == asked
    contents = [found.content if isinstance(found, Observed) else None for _, found in seen]
    a, b = blake3(b"a").digest(), blake3(b"b").digest()
    assert contents == [a, b, None, a, None, b]


def test_i09_no_descriptor_stays_open(root: Root, folder: Path) -> None:
    """However a look ends, its descriptors are closed."""
    (folder / "d").mkdir()
    (folder / "d" / "x").write_bytes(noise(200_000))
    os.mkfifo(folder / "d" / "fifo")
    before = os.listdir("/proc/self/fd")
    asked = [b"d/x", b"d/fifo", b"d/none", b"none/x", b"d"]
    observe_many(root, asked)
    for path in asked:
        read_file(root, path, b"")
        read_chunks(root, path, [(0, 1, b"")])
    assert os.listdir("/proc/self/fd") == before


def test_a_file_swapped_for_a_link_at_the_last_moment(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the open a link may appear: it is not followed."""
    (folder / "x").write_bytes(b"x")
    real = os.open

    def swap(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        (folder / "x").unlink()
        (folder / "x").symlink_to("/etc/passwd")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    assert problem(root, b"x") is Reason.CHANGING


def test_a_file_swapped_for_a_directory_at_the_last_moment(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the open a directory may appear: look again later."""
    (folder / "x").write_bytes(b"x")
    real = os.open

    def swap(path: bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        (folder / "x").unlink()
        (folder / "x").mkdir()
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    assert problem(root, b"x") is Reason.CHANGING


@pytest.mark.slow
def test_o02_hashing_a_large_file_takes_little_memory(root: Root, folder: Path) -> None:
    """A sparse file of 300 MB is hashed in a buffer of a few."""
    import resource

    with (folder / "x").open("wb") as sparse:
        sparse.truncate(300 * limits.MIB)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = file(root, b"x")
    assert seen.manifest is not None
    assert set(seen.manifest.sizes) == {256 * limits.KIB}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32 * 1024
    assert stat.S_ISREG(seen.signature.mode if seen.signature else 0)
