"""Vectors: for each author the highest seq taken in.

A vector is a plain dict treated as a value: functions here never change their arguments.
They form a join-semilattice under `join`, which is why the order of delivery is irrelevant.
"""

from __future__ import annotations

from blake3 import blake3

from p2psync.core.ids import Dot

Vector = dict[int, int]


def covers(vector: Vector, dot: Dot) -> bool:
    """Say whether the dot's seq is not above the vector's for its author."""
    return vector.get(dot[0], 0) >= dot[1]


def includes(larger: Vector, smaller: Vector) -> bool:
    """Say whether every dot that `smaller` covers is covered by `larger`."""
    if larger is smaller:
        return True
    for author, seq in smaller.items():  # noqa: SIM110 - all() takes twice as long here
        if larger.get(author, 0) < seq:
            return False
    return True


def join(a: Vector, b: Vector) -> Vector:
    """Return the least vector that includes both; `a` itself when it includes `b`."""
    if includes(a, b):
        return a
    joined = dict(a)
    for author, seq in b.items():
        if seq > joined.get(author, 0):
            joined[author] = seq
    return joined


def beyond(vector: Vector, told: Vector) -> Vector:
    """Return the components of `vector` that are above `told`: what is left to tell.

    `join(told, beyond(vector, told)) == join(told, vector)`.
    """
    if vector is told:
        return {}
    return {author: seq for author, seq in vector.items() if seq > told.get(author, 0)}


def digest(vector: Vector) -> bytes:
    """Return 16 bytes that are equal exactly when the vectors are (BLAKE3, truncated)."""
    hasher = blake3()
    for author, seq in sorted(vector.items()):
        hasher.update(author.to_bytes(8, "big") + seq.to_bytes(8, "big"))
    return hasher.digest(16)
