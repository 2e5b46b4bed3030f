"""Gives memory back to the system when a burst is over; what cannot be given back is kept.

Python and SQLite free what they used, but glibc keeps it: after a first sync of 48,000 files an
idle agent held 120 MB, of which half was free. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

M_ARENA_MAX: Final = -8  # <malloc.h>
ARENAS: Final = 2
"""glibc has 8 for each core, and every thread keeps free memory of its own in one of them. All
our threads take turns under the interpreter's lock: two are enough."""


def settle() -> None:
    """Choose once, before there are threads, how much is kept for each of them."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)


def freeze() -> None:
    """Everything there is now stays for ever: let it never be searched for garbage again."""
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Return what is free to the system; takes some milliseconds, for quiet moments."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
