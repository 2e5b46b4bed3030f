"""A real folder to act on: things to stand in it, looks at what stands there, dying children.

    folder = Folder.make(tmp_path)
    row = folder.stand(b"notes.txt", b"mine")
    outcome = folder.root.put(folder.prepare(b"theirs"), b"notes.txt", row)
    assert folder.shows(b"notes.txt") == b"theirs"

A *thing* is the bytes of a file, a `Link`, or `DIRECTORY`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import stat
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from blake3 import blake3

from p2psync.core.entry import Kind
from p2psync.core.index import Place, Row
from p2psync.core.problem import Problem
from p2psync.fs import syscalls
from p2psync.fs.root import Root
from p2psync.fs.staging import Prepared

REPLICA: Final = b"r" * 8
FOLDER: Final = b"f" * 16
MTIME_NS: Final = 1_000_000_000_000_000_000
"""Long ago: no look at such a file is racy."""


class Link(NamedTuple):
    """A symbolic link."""

    text: bytes


class Directory(NamedTuple):
    """A directory."""


DIRECTORY: Final = Directory()
Thing = bytes | Link | Directory


def place_of(thing: Thing, *, executable: bool = False, mtime_ns: int = MTIME_NS) -> Place:
    """Return what the view wants where this thing should stand."""
    dots, home = frozenset({(7, 1)}), b"home"
    if isinstance(thing, bytes):
        content = blake3(thing).digest()
        return Place(Kind.FILE, content, len(thing), b"", executable, mtime_ns, dots, home)
    if isinstance(thing, Link):
        content = blake3(thing.text).digest()
        return Place(Kind.LINK, content, 0, thing.text, False, 0, dots, home)
    return Place(Kind.DIRECTORY, b"", 0, b"", False, 0, dots, home)


@dataclass
class Folder:
    """An opened root with helpers."""

    path: Path
    root: Root

    @classmethod
    def make(cls, path: Path) -> Folder:
        """Make a root here, or open the one that is here."""
        return cls(path, Root.create(os.fsencode(path), REPLICA, FOLDER))

    def restart(self) -> None:
        """Open it as a new start of the agent would, nothing recovered yet."""
        traits = self.root.traits
        self.root.close()
        self.root = Root.open(os.fsencode(self.path), REPLICA, FOLDER)
        self.root.traits = traits

    def without_flags(self) -> Folder:
        """Take away what the filesystem can do, so that the fallbacks are used."""
        self.root.traits = dataclasses.replace(
            self.root.traits, exchange=False, noreplace=False
        )
        return self

    def at(self, path: bytes) -> bytes:
        """Return the absolute path."""
        return os.path.join(os.fsencode(self.path), path)

    def write(self, path: bytes, thing: Thing) -> None:
        """Make a thing stand at a path, as a person would."""
        full = self.at(path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        if isinstance(thing, Link):
            os.symlink(thing.text, full)
        elif isinstance(thing, Directory):
            os.mkdir(full)
        else:
            Path(os.fsdecode(full)).write_bytes(thing)

    def stand(self, path: bytes, thing: Thing) -> Row:
        """Make a thing stand at a path, long since; return its row."""
        self.write(path, thing)
        if isinstance(thing, bytes):
            os.utime(self.at(path), ns=(MTIME_NS, MTIME_NS))
        elif isinstance(thing, Link):
            os.utime(self.at(path), ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
        return Row(place_of(thing), self.root.look(path))

    def prepare(self, thing: Thing, place: Place | None = None) -> Prepared:
        """Stage a thing; it must succeed."""
        place = place or place_of(thing)
        if isinstance(thing, Link):
            prepared = self.root.prepare_link(place)
        elif isinstance(thing, Directory):
            prepared = self.root.prepare_directory(place)
        else:
            prepared = self.root.prepare_bytes(place.content, thing, place)
        assert not isinstance(prepared, Problem), prepared
        return prepared

    def shows(self, path: bytes) -> Thing | None:
        """Return what stands at a path; None: nothing."""
        return thing_at(self.at(path))

    def visible(self) -> dict[bytes, Thing]:
        """Return everything a person sees, by path."""
        return things_below(os.fsencode(self.path), leave_out=b".p2psync")

    def kept(self) -> dict[bytes, Thing]:
        """Return everything in the history, by name."""
        return things_below(self.at(b".p2psync/history"))

    def staged(self) -> list[bytes]:
        """Return the names in staging."""
        return sorted(os.listdir(self.at(b".p2psync/staging")))

    def retrievable(self) -> set[Thing]:
        """Return every content a person can still get at."""
        return {*self.visible().values(), *self.kept().values()}


def thing_at(path: bytes) -> Thing | None:
    """Return what stands at an absolute path; None: nothing."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(mode):
        return Link(os.readlink(path))
    if stat.S_ISDIR(mode):
        return DIRECTORY
    return Path(os.fsdecode(path)).read_bytes()


def things_below(top: bytes, leave_out: bytes = b"") -> dict[bytes, Thing]:
    """Return everything below a directory, by relative path."""
    found: dict[bytes, Thing] = {}
    for parent, directories, files in os.walk(top):
        if parent == top and leave_out in directories:
            directories.remove(leave_out)
        for name in [*directories, *files]:
            full = os.path.join(parent, name)
            thing = thing_at(full)
            if thing is not None:
                found[os.path.relpath(full, top)] = thing
    return found


# ---------------------------------------------------------------------- between effects


@contextlib.contextmanager
def before_effect(number: int, *acts: Callable[[], None]) -> Iterator[list[str]]:
    """Do something just before the effect of this number (from 1) on the disk.

    Of several acts, one each before the effects from there on.

    Nothing is made durable meanwhile: that takes long and shows only when the power fails.

    Yields:
        The names of the effects so far; shorter than `number` when it was never done.
    """
    effects: list[str] = []

    def watched(name: str) -> Callable[..., object]:
        effect: Callable[..., object] = getattr(syscalls, name)

        def watching(*args: object) -> object:
            effects.append(name)
            if 0 <= len(effects) - number < len(acts):
                acts[len(effects) - number]()
            return None if name in ("fsync", "sync_filesystem") else effect(*args)

        return watching

    with pytest.MonkeyPatch.context() as patch:
        for name in syscalls.EFFECTS:
            patch.setattr(syscalls, name, watched(name))
        yield effects


class DiedError(BaseException):
    """The process would be dead by now; no code may handle this."""


@contextlib.contextmanager
def dying_at(number: int) -> Iterator[list[str]]:
    """Die just before the effect of this number: from there on nothing has any effect.

    What kill -9 does, but for descriptors being closed, and far faster.

    Yields:
        The names of the effects so far; shorter than `number` when it did not come to that.
    """
    effects: list[str] = []

    def mortal(name: str) -> Callable[..., object]:
        effect: Callable[..., object] = getattr(syscalls, name)

        def living(*args: object) -> object:
            effects.append(name)
            if len(effects) >= number:
                raise DiedError
            return None if name in ("fsync", "sync_filesystem") else effect(*args)

        return living

    with pytest.MonkeyPatch.context() as patch:
        for name in syscalls.EFFECTS:
            patch.setattr(syscalls, name, mortal(name))
        with contextlib.suppress(DiedError):
            yield effects


def die() -> None:
    """Die as by `kill -9`, at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(act: Callable[[], object]) -> int:
    """Do something in a child process; return 0, or the signal that killed it.

    An exception in the child is printed and fails the test.
    """
    with warnings.catch_warnings():
        # other tests may have left idle native threads; the child never needs one of them
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code <= 0, f"the child ended with {code}"
    return -code


def mounted(options: str, where: Path, act: Callable[[], object]) -> None:
    """Do something in a child that sees a fresh small filesystem mounted at `where`.

    options: of a tmpfs, as "size=1m".
    """

    def child() -> None:
        run("mount", "-t", "tmpfs", "-o", options, "tmpfs", where)
        act()

    with_own_mounts(child)


def with_own_mounts(act: Callable[[], object]) -> None:
    """Do something in a child whose mounts nobody else sees and that end with it."""

    def child() -> None:
        unshared = ctypes.CDLL(None).unshare(0x00020000)  # mounts
        assert unshared == 0, "no mount namespace of its own"
        run("mount", "--make-rprivate", "/")
        act()

    assert in_child(child) == 0


def run(*command: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, capture_output=True)
