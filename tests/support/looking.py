"""A real root in a temporary directory, rows made from what was seen in it, and other users."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from p2psync.core.ignore import NOTHING, Rules
from p2psync.core.index import Place, Row
from p2psync.core.observed import Observed
from p2psync.core.problem import Problem
from p2psync.fs.hashing import observe_many
from p2psync.fs.root import Root
from p2psync.fs.scan import DirectoryScan, scan_tree

NOBODY = 65534


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Root]:
    """Make a directory the root of a replica and open it."""
    path.mkdir(exist_ok=True)
    root = Root.create(bytes(path), b"r" * 16, b"f" * 16)
    try:
        yield root
    finally:
        root.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a root."""
    return tmp_path / "folder"


@pytest.fixture
def root(folder: Path) -> Iterator[Root]:
    """The opened root of `folder`, with nothing in it."""
    with opened(folder) as it:
        yield it


@contextlib.contextmanager
def deep(folder: Path, directory: str, file: str) -> Iterator[None]:
    """A file in 1,000 directories of one name in each other; `rm` can remove such a thing."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(1_000):
        os.mkdir(directory, dir_fd=at)
        below = os.open(directory, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    try:
        yield
    finally:
        subprocess.run(["rm", "-rf", folder / directory], check=True)


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Be a user whom permissions bind; root can read what it may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public() -> Iterator[Path]:
    """A temporary directory that any user can reach."""
    path = Path(tempfile.mkdtemp(prefix="p2psync-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Seen:
    """The rows of everything that could be observed, as an index would hold them."""

    def __init__(self, root: Root, rules: Rules = NOTHING) -> None:
        self.root = root
        self.rows: dict[bytes, Row] = {}
        self.take_in(rules)

    def children(self, directory: bytes) -> Mapping[bytes, Row]:
        """The rows of a directory's children, by name."""
        return {
            path.rpartition(b"/")[2]: row
            for path, row in self.rows.items()
            if path.rpartition(b"/")[0] == directory
        }

    def scan(self, rules: Rules = NOTHING, start: bytes = b"") -> list[DirectoryScan]:
        """Scan from a directory downwards against these rows."""
        return list(scan_tree(self.root, start, self.children, rules))

    def take_in(self, rules: Rules = NOTHING) -> list[Problem]:
        """Scan everything and believe what can be observed; the timestamps are taken as old."""
        problems = []
        for path, seen in observe_many(self.root, changed(self.scan(rules))):
            if isinstance(seen, Observed):
                signature = seen.signature or self.root.look(path)
                self.rows[path] = Row(_place(path, seen), signature)
            elif seen is not None:
                problems.append(seen)
        return problems


def _place(path: bytes, seen: Observed) -> Place:
    dots = frozenset({(1, 1)})
    return Place(*seen[:4], seen.executable, seen.mtime_ns, dots, path)


def changed(scans: Iterable[DirectoryScan]) -> list[bytes]:
    """All paths that need a closer look, in the order they were found."""
    return [path for scan in scans for path in scan.changed]


def missing(scans: Iterable[DirectoryScan]) -> list[bytes]:
    """All paths that seemed missing."""
    return [path for scan in scans for path in scan.missing]


def problems(scans: Iterable[DirectoryScan]) -> list[Problem]:
    """All problems that were met."""
    return [problem for scan in scans for problem in scan.problems]
