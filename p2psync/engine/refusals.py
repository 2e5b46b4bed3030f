"""Directories that must not be shared, and why: before anything is made."""

from __future__ import annotations

import os
from collections.abc import Iterable

from p2psync.core import paths
from p2psync.errors import UserError


def check_directory(root: bytes) -> None:
    """Refuse what is no directory, or one this user cannot sync.

    Raises:
        UserError: with the reason in words for a person.
    """
    shown = paths.printable(root)
    if not os.path.isdir(root):
        what = "is not a directory" if os.path.lexists(root) else "does not exist"
        raise UserError(f"{shown} {what}. Name an existing directory.")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise UserError(f"{shown} cannot be read and written by this user.")


def check_place(root: bytes, roots: Iterable[bytes], home: bytes) -> None:
    """Refuse a place where no replica may be, whether or not anything is there.

    Args:
        root: absolute, without symlinks.
        roots: those of the replicas there are.
        home: the agent's home, which holds the keys.

    Raises:
        UserError: with the reason in words for a person.
    """
    shown = paths.printable(root)
    if root == b"/" or root == own_home():
        raise UserError(f"{shown} is too much to share. Choose a directory inside it.")
    keys = os.path.realpath(home)
    if inside(keys, root):
        raise UserError(f"{shown} holds this agent's keys ({paths.printable(home)}).")
    if inside(root, keys):
        raise UserError(f"{shown} is inside this agent's home, where its keys are.")
    for other in roots:
        if root != other and (inside(root, other) or inside(other, root)):
            where = "inside" if inside(root, other) else "around"
            raise UserError(
                f"{shown} is {where} {paths.printable(other)}, which is shared already."
            )


def inside(path: bytes, directory: bytes) -> bool:
    """Say whether a path is the directory or something below it."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def own_home() -> bytes:
    """Return the user's home directory, without symlinks."""
    return os.path.realpath(os.path.expanduser(b"~"))
