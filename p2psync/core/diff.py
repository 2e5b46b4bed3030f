"""Which children of one directory need a closer look, by comparing what `lstat` says.

A file is the same only if everything `lstat` says is the same, ctime and inode included: size
and mtime alone miss what spreadsheets, `cp -p` and `touch -r` do. A directory is the same if
it is the same directory; its times change with its children, which are compared themselves.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from p2psync.core.entry import Kind
from p2psync.core.index import Row, Signature


class Diff(NamedTuple):
    """Names of the children of one directory.

    changed: to be observed (new, different, or not to be trusted). sizes: theirs, in bytes.
    missing: have a row and were not listed. replaced: those that have a row as a directory and
    are none now, so whatever has a row below them is missing too. same: how many need no look.
    moved: new or different here, and certainly what stood under the same name in the directory
    before it was renamed to here; with what was seen of them.
    """

    changed: list[bytes]
    missing: list[bytes]
    replaced: list[bytes]
    same: int
    sizes: list[int]
    moved: dict[bytes, Signature]


def same(seen: Signature, row: Row) -> bool:
    """Say whether the object that `lstat` saw is certainly the one the row was made from."""
    believed = row.signature
    if believed is None:
        return False
    if row.place.kind is Kind.DIRECTORY:
        return stat.S_ISDIR(seen.mode) and seen[:2] == believed[:2]
    return seen == believed


def diff(
    listed: Iterable[tuple[bytes, Signature]],
    rows: Mapping[bytes, Row],
    before: Mapping[bytes, Row] | None = None,
) -> Diff:
    """Compare a listing, taken one by one so that it may be endless, with the rows by name.

    before: the rows of the children this very directory had under another name. A rename of
    the directory leaves everything that `lstat` says of them as it was.
    """
    found = Diff([], [], [], 0, [], {})
    before = before or {}
    known: set[bytes] = set()
    equal = 0
    for name, seen in listed:
        row = rows.get(name)
        if row is not None:
            known.add(name)
            if same(seen, row):
                equal += 1
                continue
            if row.place.kind is Kind.DIRECTORY and not stat.S_ISDIR(seen.mode):
                found.replaced.append(name)
        if name in before and same(seen, before[name]):
            found.moved[name] = seen
        else:
            found.changed.append(name)
            found.sizes.append(seen.size)
    return found._replace(missing=[name for name in rows if name not in known], same=equal)
