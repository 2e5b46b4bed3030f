"""What a look at the disk found at a path."""

from __future__ import annotations

from typing import NamedTuple

from p2psync.core.entry import Kind
from p2psync.core.index import Signature


class Manifest(NamedTuple):
    """A large file's chunks in order: BLAKE3-256 hashes concatenated, and sizes in bytes."""

    hashes: bytes
    sizes: list[int]


class Observed(NamedTuple):
    """An object on the disk, hashed between two equal looks at it.

    signature is None when the bytes may change without the signature changing (the file was
    modified within the timestamp's grain of the look): it will be hashed again.
    manifest: only for a file above `limits.SMALL_FILE`.
    """

    kind: Kind
    content: bytes
    size: int
    link: bytes
    executable: bool
    mtime_ns: int
    signature: Signature | None
    manifest: Manifest | None = None
