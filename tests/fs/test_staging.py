"""Preparing new contents: complete, verified, private until shown, durable when asked."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2psync.core.index import Row
from p2psync.core.problem import Problem, Reason
from p2psync.errors import IntegrityError
from p2psync.fs import syscalls
from p2psync.fs.ground import problem_of
from p2psync.fs.root import Done
from tests.support.folder import (
    DIRECTORY,
    Folder,
    Link,
    in_child,
    place_of,
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder.make(tmp_path)
    yield folder
    folder.root.close()


def fail(number: int) -> Callable[..., None]:
    """Return an effect that fails with this error."""

    def failing(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing


# ---------------------------------------------------------------------- content-truth


def test_s4_wrong_bytes_are_never_staged(folder: Folder) -> None:
    """Neither of a file nor of a link; nothing is left of them."""
    place = place_of(b"announced")
    with pytest.raises(IntegrityError):
        folder.root.prepare_bytes(place.content, b"other", place)
    with pytest.raises(IntegrityError):
        folder.root.prepare_link(place_of(Link(b"announced"))._replace(link=b"other"))
    assert folder.staged() == []


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20 + 17])
@pytest.mark.parametrize("clone", [True, False])
def test_r06_a_copy_is_byte_for_byte(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, size: int, clone: bool
) -> None:
    """Of any size, by shared blocks and without (H12), and never the same inode (H09)."""
    if not clone:
        monkeypatch.setattr(syscalls, "clone", lambda source, target: False)
    data = os.urandom(size)
    row = folder.stand(b"x", data)
    copy = folder.root.prepare_copy(b"x", place_of(data, mtime_ns=5), row)
    assert not isinstance(copy, Problem)
    assert isinstance(folder.root.put(copy, b"y", None), Done)
    assert folder.visible() == {b"x": data, b"y": data}
    assert os.stat(folder.at(b"x")).st_ino != os.stat(folder.at(b"y")).st_ino
    assert os.stat(folder.at(b"y")).st_mtime_ns == 5


def test_b14_a_copy_of_what_has_changed_is_refused(folder: Folder) -> None:
    """By its signature, and by its hash where there is none to be trusted."""
    row = folder.stand(b"x", b"old")
    folder.write(b"x", b"EDT")
    changed = Problem(b"x", Reason.CHANGING, "it is not what it was when it was last looked at")
    assert folder.root.prepare_copy(b"x", row.place, row) == changed
    assert folder.root.prepare_copy(b"x", row.place, Row(row.place, None)) == changed
    for path in (b"missing", b"x/y"):
        problem = folder.root.prepare_copy(path, row.place, Row(row.place, None))
        assert problem == changed._replace(path=path)
    folder.write(b"link", Link(b"x"))
    problem = folder.root.prepare_copy(b"link", row.place, Row(row.place, None))
    assert problem == changed._replace(path=b"link")
    assert folder.staged() == []


def test_h10_a_copy_keeps_holes(folder: Folder) -> None:
    """A sparse file takes next to no space when it is copied."""
    fd = os.open(folder.at(b"x"), os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 64 * 2**20)
    os.pwrite(fd, b"data", 32 * 2**20)
    os.close(fd)
    data = Path(os.fsdecode(folder.at(b"x"))).read_bytes()
    copy = folder.root.prepare_copy(b"x", place_of(data), Row(place_of(data), None))
    assert not isinstance(copy, Problem)
    status = os.stat(folder.at(b".p2psync/staging/" + copy.name))
    assert status.st_size == len(data)
    assert status.st_blocks * 512 <= 2**21


def test_history_gives_bytes_back(folder: Folder) -> None:
    """A removed file is staged again from the history; what is not there is a problem."""
    row = folder.stand(b"x", b"old")
    gone = folder.root.remove(b"x", row)
    assert isinstance(gone, Done)
    assert gone.history is not None
    again = folder.root.prepare_history(gone.history, row.place)
    assert not isinstance(again, Problem)
    folder.root.put(again, b"x", None)
    assert folder.shows(b"x") == b"old"
    assert folder.kept()[gone.history] == b"old"
    for name in (b"missing", os.path.dirname(gone.history), b"../marker"):
        assert isinstance(folder.root.prepare_history(name, row.place), Problem)
    wrong = folder.root.prepare_history(gone.history, place_of(b"other"))
    assert isinstance(wrong, Problem)
    assert wrong.reason is Reason.CHANGING


@pytest.mark.parametrize("thing", [b"bytes", Link(b"text"), DIRECTORY])
def test_what_is_put_aside_is_a_second_one(folder: Folder, thing: bytes | Link) -> None:
    """The path goes on showing it, whatever happens to the one aside."""
    row = folder.stand(b"x", thing)
    aside = folder.root.prepare_aside(b"x", row)
    assert not isinstance(aside, Problem)
    assert folder.shows(b"x") == thing
    folder.root.put(aside, b"y", None)
    assert folder.shows(b"y") == thing
    assert os.lstat(folder.at(b"x")).st_ino != os.lstat(folder.at(b"y")).st_ino


def test_h08_a_link_may_hold_any_bytes(folder: Folder) -> None:
    """Up to 4,095 of them, absolute or leading out, stored as they are."""
    for number, text in enumerate((b"/etc/passwd", b"../../..", b"\xff\n", b"x" * 4_095)):
        path = b"%d" % number
        assert isinstance(folder.root.put(folder.prepare(Link(text)), path, None), Done)
        assert folder.shows(path) == Link(text)
    long = folder.root.prepare_link(place_of(Link(b"x" * 5_000)))
    assert isinstance(long, Problem)
    assert long.reason is Reason.NAME_TOO_LONG


# ---------------------------------------------------------------------- private, permissions


def test_t43_nothing_staged_is_ever_open_to_others(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made 0600 in a directory nobody else can enter, under a name nobody can guess."""
    modes = []
    write = syscalls.write

    def watched(file: int, data: bytes, offset: int) -> None:
        modes.append(stat.S_IMODE(os.fstat(file).st_mode))
        write(file, data, offset)

    monkeypatch.setattr(syscalls, "write", watched)
    names = {folder.prepare(b"bytes").name for _ in range(20)}
    assert modes == [0o600] * 20
    assert len(names) == 20
    assert {len(name) for name in names} == {20}
    assert stat.S_IMODE(os.stat(folder.at(b".p2psync")).st_mode) == 0o700


@pytest.mark.parametrize(
    ("mask", "plain", "executable"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_i17_the_umask_decides_who_may_read(
    tmp_path: Path, mask: int, plain: int, executable: int
) -> None:
    """Of new files and directories."""

    def child() -> None:
        os.umask(mask)
        folder = Folder.make(tmp_path)
        place = place_of(b"1", executable=True)
        folder.root.put(folder.prepare(b"1"), b"plain", None)
        folder.root.put(folder.prepare(b"1", place), b"run", None)
        folder.root.put(folder.prepare(DIRECTORY), b"staged", None)
        folder.root.make_directory(b"made")
        modes = {
            name: stat.S_IMODE(os.stat(folder.at(name)).st_mode) for name in folder.visible()
        }
        assert modes == {
            b"plain": plain,
            b"run": executable,
            b"staged": executable,
            b"made": executable,
        }

    assert in_child(child) == 0


# ---------------------------------------------------------------------- trouble, durability


ERRORS = [
    ("ENOSPC", Reason.NO_SPACE),
    ("EDQUOT", Reason.NO_SPACE),
    ("EROFS", Reason.READ_ONLY),
    ("EACCES", Reason.UNWRITABLE),
    ("EPERM", Reason.UNWRITABLE),
    ("ENAMETOOLONG", Reason.NAME_TOO_LONG),
    ("EMFILE", Reason.OVERLOADED),
    ("EXDEV", Reason.MOUNTED),
    ("EIO", Reason.IO_ERROR),
    ("ESTALE", Reason.IO_ERROR),
]


@pytest.mark.parametrize(("error", "reason"), ERRORS)
def test_every_error_has_its_reason(error: str, reason: Reason) -> None:
    """And a detail for a person, unless it says the same; what cannot be read is not called
    unwritable."""
    number = getattr(errno, error)
    raised = OSError(number, os.strerror(number))
    problem = problem_of(b"x", raised)
    assert (problem.path, problem.reason) == (b"x", reason)
    assert bool(problem.detail) is (error != "ENOSPC")
    reading = problem_of(b"x", raised, reading=True).reason
    assert reading is (Reason.UNREADABLE if reason is Reason.UNWRITABLE else reason)


@pytest.mark.parametrize("effect", ["create", "write", "set_mode", "set_mtime"])
@pytest.mark.parametrize("error", [28, 5, 30])
def test_i05_trouble_while_staging_is_a_problem_and_leaves_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, effect: str, error: int
) -> None:
    """The old file stays as it is."""
    row = folder.stand(b"x", b"old")
    place = place_of(b"new")
    monkeypatch.setattr(syscalls, "clone", lambda source, target: False)
    monkeypatch.setattr(syscalls, effect, fail(error))
    problem = folder.root.prepare_bytes(place.content, b"new", place)
    assert problem == problem_of(b"home", OSError(error, os.strerror(error)))
    copy = folder.root.prepare_copy(b"x", row.place, row)
    assert isinstance(copy, Problem)
    assert folder.staged() == []
    assert folder.visible() == {b"x": b"old"}


@pytest.mark.parametrize("effect", ["exchange", "rename", "rename_new"])
@pytest.mark.parametrize("error", [28, 5, 30])
def test_i05_trouble_while_putting_in_place_changes_nothing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, effect: str, error: int
) -> None:
    """And what was prepared can be put there when the trouble is over."""
    row = folder.stand(b"x", b"old")
    new, replacing = folder.prepare(b"one"), folder.prepare(b"two")
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, effect, fail(error))
        outcomes = [
            folder.root.put(new, b"y", None) if effect == "rename_new" else None,
            folder.root.put(replacing, b"x", row) if effect != "rename_new" else None,
            folder.root.remove(b"x", row) if effect == "rename" else None,
        ]
    assert {type(one) for one in outcomes if one is not None} == {Problem}
    assert folder.visible() == {b"x": b"old"}
    row = Row(row.place, folder.root.look(b"x"))
    assert isinstance(folder.root.put(new, b"y", None), Done)
    assert isinstance(folder.root.put(replacing, b"x", row), Done)
    assert folder.staged() == []


def test_i05_what_the_history_cannot_take_stays_in_staging(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk does not undo a delete, and the next start puts it away."""
    row = folder.stand(b"x", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(folder.root.history, "keep", fail(28))
        assert folder.root.remove(b"x", row) == Done(None, None)
    assert folder.visible() == {}
    folder.restart()
    (saved,) = folder.root.recover()
    assert saved.history is not None
    assert folder.kept()[saved.history] == b"old"
    assert b"x~" in saved.history


@pytest.mark.parametrize("way", ["sync", "sync_file", "sync_directories"])
def test_i13_after_a_failed_sync_nothing_staged_before_is_used(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The kernel says "written" the next time, of bytes it has lost."""
    place = place_of(b"new")
    prepared = folder.prepare(b"new")
    partial = folder.root.partial(place.content, 3)
    partial.write([((0, 3, place.content), b"new")])
    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "fsync", fail(5))
        patch.setattr(syscalls, "sync_filesystem", fail(5))
        sync: Callable[[], None] = {
            "sync": folder.root.sync,
            "sync_file": lambda: folder.root.sync_file(prepared),
            "sync_directories": lambda: folder.root.sync_directories([b""]),
        }[way]
        with pytest.raises(OSError, match="Input/output"):
            sync()
    folder.root.sync()
    outcome = folder.root.put(prepared, b"x", None)
    assert isinstance(outcome, Problem)
    assert outcome.reason is Reason.IO_ERROR
    assert isinstance(partial.finish(place), Problem)
    with pytest.raises(OSError, match="the disk lost"):
        partial.write([((0, 3, place.content), b"new")])
    partial.close()
    folder.root.discard(prepared)
    assert folder.staged() == []
    folder.root.put(folder.prepare(b"new"), b"x", None)
    assert folder.shows(b"x") == b"new"


def test_everything_can_be_made_durable(folder: Folder) -> None:
    """At once, one by one, and directories that are gone meanwhile are left out."""
    for thing in (b"1", Link(b"t"), DIRECTORY):
        folder.root.sync_file(folder.prepare(thing))
    row = folder.stand(b"d/x", b"old")
    folder.root.remove(b"d/x", row)
    assert folder.root.history.unsynced
    folder.root.sync_directories([b"", b"d", b"missing", b"d"])
    assert not folder.root.history.unsynced
    folder.root.sync()


def test_syncfs_missing_is_no_failure(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sandbox refuses it, the whole system is synced."""
    synced = []

    class Refusing:
        def syncfs(self, file: int) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    monkeypatch.setattr(syscalls, "_LIBC", Refusing())
    monkeypatch.setattr(os, "sync", lambda: synced.append(True))
    folder.root.sync()
    assert synced == [True]


def test_what_somebody_removed_from_staging_is_a_problem(folder: Folder) -> None:
    """Not a surprise at the path: nothing is wrong there."""
    row = folder.stand(b"x", b"old")
    prepared = folder.prepare(b"new")
    folder.root.discard(prepared)
    folder.root.discard(prepared)
    for given in (row, None):
        outcome = folder.root.put(prepared, b"x" if given else b"y", given)
        assert isinstance(outcome, Problem)
        assert outcome.reason is Reason.IO_ERROR
        assert "has been removed" in outcome.detail


def test_a_filesystem_without_links_says_so(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is never replaced by a text file (H07)."""
    monkeypatch.setattr(syscalls, "symlink", fail(1))
    problem = folder.root.prepare_link(place_of(Link(b"t")))
    assert isinstance(problem, Problem)
    assert problem.reason is Reason.NOT_REPRESENTABLE


def test_i15_where_there_is_no_executable_bit_none_is_set(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing fails for it."""
    monkeypatch.setattr(syscalls, "set_mode", fail(1))
    folder.root.traits = replace(folder.root.traits, executable=False)
    place = place_of(b"1", executable=True)
    put = folder.root.put(folder.prepare(b"1", place), b"x", None)
    assert isinstance(put, Done)
    again = place_of(b"1", mtime_ns=7)
    row = Row(place, put.signature)
    assert folder.root.set_metadata(b"x", again, row) == Done(None, None)
    assert os.stat(folder.at(b"x")).st_mtime_ns == 7
