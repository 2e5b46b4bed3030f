"""Walks the tree and says what needs a closer look, and what is missing with how much evidence.

Promises: evidence-for-delete (in a directory that could not be listed to its end, or that lies
behind another filesystem's mount point, nothing is missing); links are never followed; what is
ignored is neither reported nor missing; memory is bounded by the largest directory, not the
tree, and depth by nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from p2psync.core.diff import diff
from p2psync.core.entry import Kind
from p2psync.core.ignore import NOTHING, RULES_BYTES, Rules
from p2psync.core.index import Row, Signature
from p2psync.core.problem import Problem, Reason
from p2psync.fs import syscalls
from p2psync.fs.ground import ABSENT, Ground, problem_of, signature_of
from p2psync.fs.hashing import read_whole

RULES_NAME: Final = b".p2psyncignore"

RowsOf = Callable[[bytes], Mapping[bytes, Row]]
"""The rows of a directory's children, by name."""


@dataclass
class DirectoryScan:
    """What a look into one directory found; all paths are relative to the root.

    changed: to be observed. sizes: theirs, in bytes. moved: stood under the directory's former
    name and are unchanged since; the row they have there, and what was seen. missing: have a
    row and were not listed; only suspects until `confirm_missing` has looked again, and what
    has rows below them is missing with them. replaced: those of changed and moved that have a
    row as a directory and are none now: what has rows below them is missing too.
    subdirectories: to be scanned next. ignored: stand here and are none of our business.
    complete: False when the listing cannot be trusted to name all children; then missing and
    replaced are empty. names: only these children were looked at; None: all there are. same:
    how many are as their rows say.
    """

    directory: bytes
    changed: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    moved: dict[bytes, tuple[Row, Signature]] = field(default_factory=dict)
    missing: list[bytes] = field(default_factory=list)
    replaced: list[bytes] = field(default_factory=list)
    subdirectories: list[bytes] = field(default_factory=list)
    ignored: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    complete: bool = True
    names: Collection[bytes] | None = None
    same: int = field(default=0, compare=False)


def scan_directory(
    root: Ground,
    directory: bytes,
    rows: Mapping[bytes, Row],
    rules: Rules,
    before: Mapping[bytes, Row] | None = None,
) -> DirectoryScan:
    """Compare one directory with its rows.

    Args:
        root: the opened root.
        directory: relative to it; b"" is the root itself.
        rows: the rows of its children, by name.
        rules: what to pass over.
        before: the rows of the children it had under another name, if it was renamed.

    Returns:
        What was found. A directory that is no longer there is one without children.
    """
    scan = DirectoryScan(directory)
    if not rules.ignored(directory, is_directory=True):
        _scan(scan, root, rows, rules, before)
    return scan


def scan_names(
    root: Ground,
    directory: bytes,
    names: Collection[bytes],
    rows: Mapping[bytes, Row],
    rules: Rules,
) -> DirectoryScan:
    """Compare some children of a directory, however many it has, with their rows.

    Args:
        root: the opened root.
        directory: relative to it; b"" is the root itself.
        names: of the children to look at.
        rows: the rows of those of them that have one, by name.
        rules: what to pass over.
    """
    scan = DirectoryScan(directory, names=names)
    if not rules.ignored(directory, is_directory=True):
        _scan(scan, root, rows, rules)
    return scan


def scan_tree(
    root: Ground,
    start: bytes,
    rows_of: RowsOf,
    rules: Rules,
    before: Callable[[bytes], Mapping[bytes, Row] | None] | None = None,
) -> Iterator[DirectoryScan]:
    """Scan a directory and all below it, parents before children.

    rows_of returns the rows of a directory's children by name; it is asked just before that
    directory is listed. before: likewise, of the children it had under another name; None:
    it had none.
    """
    pending = [start]
    while pending:
        directory = pending.pop()
        rows = rows_of(directory)
        scan = scan_directory(root, directory, rows, rules, before and before(directory))
        yield scan
        pending += reversed(scan.subdirectories)


def confirm_missing(root: Ground, paths: Iterable[bytes]) -> list[bytes]:
    """Look a second time at what seemed missing; return what certainly is not there.

    To be called when the whole pass is over: what was moved to a directory that had been
    scanned already is known to be elsewhere by then (fault B07). The caller makes sure that
    the root is still the root afterwards.
    """
    absent: dict[bytes, bool] = {b"": False}  # a directory that is gone is looked at once
    gone = []
    for path in paths:
        directory = path.rpartition(b"/")[0]
        if directory not in absent:
            absent[directory] = _gone(root, directory, is_directory=True)
        if absent[directory] or _gone(root, path, is_directory=False):
            gone.append(path)
    return gone


def load_rules(root: Ground) -> Rules | Problem:
    """Read the root's ignore file; no file means no rules.

    Returns:
        A Problem when there is one that cannot be read, is no regular file, or makes no sense:
        the folder must then be held, since nothing would be ignored (fault Q05).
    """
    try:
        found = os.stat(RULES_NAME, dir_fd=root.fd, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            return Problem(RULES_NAME, Reason.BAD_RULES, "it is not a regular file")
        text = read_whole(root.fd, RULES_NAME, RULES_BYTES + 1)
    except FileNotFoundError:
        return NOTHING
    except OSError as error:
        return problem_of(RULES_NAME, error, reading=True)
    if text is None:
        return Problem(RULES_NAME, Reason.CHANGING)
    try:
        return Rules.parse(text)
    except ValueError as error:
        return Problem(RULES_NAME, Reason.BAD_RULES, str(error))


def _scan(
    scan: DirectoryScan,
    root: Ground,
    rows: Mapping[bytes, Row],
    rules: Rules,
    before: Mapping[bytes, Row] | None = None,
) -> None:
    # to look at names it is enough to enter it
    flags = os.O_RDONLY if scan.names is None else os.O_PATH
    try:
        fd = syscalls.open_beneath(root.fd, scan.directory, flags | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in ABSENT and _gone(root, scan.directory, is_directory=True):
            _compare(scan, (), rows, rules, None)
        else:
            scan.complete = False
            scan.problems.append(problem_of(scan.directory, error, reading=True))
        return
    try:
        device = os.fstat(root.fd).st_dev
        if os.fstat(fd).st_dev != device:
            scan.complete = False
            scan.problems.append(Problem(scan.directory, Reason.MOUNTED))
            return
        _compare(scan, _children(scan, fd, device, rules), rows, rules, before)
    finally:
        os.close(fd)


def _compare(
    scan: DirectoryScan,
    listed: Iterable[tuple[bytes, Signature]],
    rows: Mapping[bytes, Row],
    rules: Rules,
    before: Mapping[bytes, Row] | None,
) -> None:
    found = diff(listed, rows, before)
    scan.same = found.same
    prefix = scan.directory + b"/" if scan.directory else b""
    scan.changed += [prefix + name for name in found.changed]
    scan.sizes += found.sizes
    if before:
        scan.moved = {prefix + n: (before[n], seen) for n, seen in found.moved.items()}
    if not scan.complete:
        return
    scan.replaced += [prefix + name for name in found.replaced]
    passed_over = {problem.path for problem in scan.problems}.union(scan.ignored)
    for name in found.missing:
        path = prefix + name
        is_directory = rows[name].place.kind is Kind.DIRECTORY
        if path not in passed_over and not rules.ignored(path, is_directory):
            scan.missing.append(path)


def _children(
    scan: DirectoryScan, fd: int, device: int, rules: Rules
) -> Iterator[tuple[bytes, Signature]]:
    """Look at the children one by one; what is passed over is noted in the scan."""
    prefix = scan.directory + b"/" if scan.directory else b""
    try:
        with _entries(scan, fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                seen = _look(scan, prefix + name, entry, rules)
                if seen is None:
                    continue
                if seen.device != device:
                    scan.problems.append(Problem(prefix + name, Reason.MOUNTED))
                    continue
                if stat.S_ISDIR(seen.mode):
                    scan.subdirectories.append(prefix + name)
                yield name, seen
        if os.fstat(fd).st_nlink == 0:  # a deleted directory lists as an empty one
            raise OSError(errno.ESTALE, "it was deleted while it was looked at")
    except OSError as error:
        scan.complete = False
        scan.problems.append(problem_of(scan.directory, error, reading=True))


def _entries(
    scan: DirectoryScan, fd: int
) -> contextlib.AbstractContextManager[Iterable[os.DirEntry[str] | _Named]]:
    if scan.names is None:
        return os.scandir(fd)
    return contextlib.nullcontext(_Named(fd, name) for name in scan.names)


class _Named:
    """A child that was not listed, asked like one that was; each question raises OSError."""

    def __init__(self, directory: int, name: bytes) -> None:
        self.name = name
        self._directory = directory
        self._status: os.stat_result | None = None

    def stat(self, *, follow_symlinks: Literal[False]) -> os.stat_result:
        """Return what it is."""
        if self._status is None:
            self._status = os.stat(
                self.name, dir_fd=self._directory, follow_symlinks=follow_symlinks
            )
        return self._status

    def is_dir(self, *, follow_symlinks: Literal[False]) -> bool:
        """Say whether it is a directory."""
        return stat.S_ISDIR(self.stat(follow_symlinks=follow_symlinks).st_mode)


def _look(
    scan: DirectoryScan, path: bytes, entry: os.DirEntry[str] | _Named, rules: Rules
) -> Signature | None:
    """Look at one child; None: pass over it. Raises OSError if all will be alike."""
    try:
        if rules.ignored(path, entry.is_dir(follow_symlinks=False)):
            scan.ignored.append(path)
            return None
        return signature_of(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None  # gone since it was listed; if it has a row it is missing
    except PermissionError:
        raise  # a directory that may be listed and not entered
    except OSError as error:
        scan.problems.append(problem_of(path, error, reading=True))
        return None


def _gone(root: Ground, path: bytes, is_directory: bool) -> bool:
    """Say whether a path certainly does not exist, or with is_directory not as a directory.

    What would have to be in something that does not exist does not either; but what another
    filesystem's mount point may hide is not gone.
    """
    device = os.fstat(root.fd).st_dev
    while path:
        try:
            with root.at(path) as place:
                parent = os.fstat(place.fd)
                if parent.st_dev != device or parent.st_nlink == 0:
                    return False
                seen = place.look()
                return seen is None or (is_directory and not stat.S_ISDIR(seen.mode))
        except OSError as error:
            if error.errno not in ABSENT:
                return False
        path = path.rpartition(b"/")[0]
        is_directory = True
    return False
