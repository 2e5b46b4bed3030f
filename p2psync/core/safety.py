"""Brakes: what no user does by accident and a broken disk does in one second.

Small predicates over counts. A brake holds the folder (state `held`); nothing is decided here
about what happens then.
"""

from __future__ import annotations

from typing import Final

MASS_DELETION_FILES: Final = 20
MASS_DELETION_PERCENT: Final = 30
EMPTIED_ENTRIES: Final = 2


def emptied_root(rows: int, found: int) -> bool:
    """Say whether a root that held at least two objects is found with none.

    rows: what the index believes stood there. found: what a full listing found.
    """
    return rows >= EMPTIED_ENTRIES and found == 0


def mass_deletion(files: int, vanished: int, renamed: int) -> bool:
    """Say whether more than 30 % of the files, and at least 20, vanish at once.

    files: how many there were. vanished: how many are gone from their paths. renamed: how many
    of those were found again under another name, by content.
    """
    deleted = vanished - renamed
    return deleted >= MASS_DELETION_FILES and deleted * 100 > files * MASS_DELETION_PERCENT
