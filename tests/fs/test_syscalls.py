"""Opening beneath a directory, with the kernel's call and without it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2psync.fs import syscalls
from p2psync.fs.traits import TICK_NS, Traits, probe

FLAGS = os.O_RDONLY | os.O_DIRECTORY


@pytest.fixture(params=[syscalls.open_beneath, syscalls.walk_beneath])
def opened(request: pytest.FixtureRequest) -> Callable[[int, bytes, int], int]:
    """Both ways to open."""

    def opened(directory: int, path: bytes, flags: int) -> int:
        way: Callable[[int, bytes, int], int] = request.param
        return way(directory, path, flags | os.O_NOFOLLOW)

    return opened


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """root/{a/b/c/file, link-out -> /, link-in -> a, fifo}, opened."""
    root = tmp_path / "root"
    (root / "a/b/c").mkdir(parents=True)
    (root / "a/b/c/file").write_bytes(b"bytes")
    (root / "link-out").symlink_to("/")
    (root / "link-in").symlink_to("a")
    (root / "a/up").symlink_to("..")
    fd = os.open(root, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"missing", errno.ENOENT),
        (b"missing/x", errno.ENOENT),
        (b"link-out", errno.ELOOP),
        (b"link-out/etc", errno.ELOOP),
        (b"link-in/b", errno.ELOOP),
        (b"a/up/a", errno.ELOOP),
        (b"a/b/c/file", errno.ENOTDIR),
        (b"a/b/c/file/x", errno.ENOTDIR),
    ],
)
def test_s9_no_link_is_crossed(
    opened: Callable[[int, bytes, int], int], directory: int, path: bytes, error: int
) -> None:
    """Neither above nor at the path, whether it leads out or not."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what is looked at
        os.close(opened(directory, path, FLAGS))
    # how a walk meets a link where a directory must be is the kernel's choice
    assert caught.value.errno in {error, errno.ENOTDIR if error == errno.ELOOP else error}


@pytest.mark.parametrize("path", [b"..", b"a/../..", b"/etc", b"a/..", b"../root/a"])
def test_t16_no_path_leads_out(directory: int, path: bytes) -> None:
    """They are refused before the kernel is asked."""
    with pytest.raises(OSError, match="cross-device"):
        os.close(syscalls.open_beneath(directory, path, FLAGS))


def test_directories_and_files_are_opened(
    opened: Callable[[int, bytes, int], int], directory: int
) -> None:
    """Of any depth."""
    fd = opened(directory, b"a/b", FLAGS)
    assert os.listdir(fd) == ["c"]
    os.close(fd)
    fd = opened(directory, b"a/b/c/file", os.O_RDONLY)
    assert os.read(fd, 10) == b"bytes"
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_the_directory_itself_is_opened(directory: int) -> None:
    """By the empty path."""
    fd = syscalls.open_beneath(directory, b"", FLAGS)
    assert os.fstat(fd).st_ino == os.fstat(directory).st_ino
    os.close(fd)


def test_without_openat2_the_walk_takes_over(
    directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel or a sandbox may refuse the call."""
    monkeypatch.setattr(syscalls, "_OPENAT2", 100_000)
    os.close(syscalls.open_beneath(directory, b"a/b/c", FLAGS))
    with pytest.raises(OSError, match=r"Not a directory|levels of symbolic"):
        syscalls.open_beneath(directory, b"link-in/b", FLAGS)


def test_h11_opening_a_fifo_does_not_wait(directory: int) -> None:
    """For a writer that never comes."""
    os.mkfifo(b"fifo", dir_fd=directory)
    os.close(syscalls.open_beneath(directory, b"fifo", os.O_RDONLY))


def test_exchange_and_rename_new(directory: int) -> None:
    """One needs both names, the other needs the second free."""
    with pytest.raises(FileNotFoundError):
        syscalls.exchange(directory, b"a", directory, b"missing")
    with pytest.raises(FileExistsError):
        syscalls.rename_new(directory, b"a", directory, b"link-in")
    syscalls.exchange(directory, b"a", directory, b"link-in")
    assert os.readlink(b"a", dir_fd=directory) == b"a"
    syscalls.rename_new(directory, b"a", directory, b"free")
    assert sorted(os.listdir(directory)) == ["free", "link-in", "link-out"]


def test_i14_short_writes_are_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until all is written, or the disk takes no more."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    syscalls.write(fd, b"0123456789" * 10, 3)
    assert os.pread(fd, 200, 0) == b"\0\0\0" + b"0123456789" * 10
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: 0)
    with pytest.raises(OSError, match="No space"):
        syscalls.write(fd, b"x", 0)
    os.close(fd)


def test_traits_are_found_by_trying(tmp_path: Path) -> None:
    """Nothing is left behind, and a write within the grain is known to be possible."""
    fd = os.open(tmp_path, os.O_RDONLY)
    traits = probe(fd)
    assert os.listdir(fd) == []
    assert traits.grain_ns >= max(TICK_NS, traits.stored_ns)
    os.rmdir(tmp_path)
    assert probe(fd) == Traits()  # nothing can be tried: the usual
    os.close(fd)


@pytest.mark.parametrize(
    ("stored", "unit"),
    [(1, 1), (100, 100), (1_000, 1_000), (10**9, 10**9), (2 * 10**9, 2 * 10**9)],
)
def test_k03_k04_the_unit_of_timestamps_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: int, unit: int
) -> None:
    """For filesystems that cut off what they cannot store."""
    utime = os.utime

    def cut(file: int, ns: tuple[int, int]) -> None:
        utime(file, ns=(ns[0] // stored * stored, ns[1] // stored * stored))

    monkeypatch.setattr(os, "utime", cut)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert probe(fd).stored_ns == unit
    os.close(fd)
