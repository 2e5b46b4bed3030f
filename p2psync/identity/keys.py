"""This device's keys, and the one file they are kept in.

A device is an Ed25519 key (signs) and an independent X25519 key (receives); neither is ever
made from the other. The file `key.json` in the agent's home is written whole and durable
beside its place and then linked into it: whoever sees it sees all of it, and of two processes
started for the first time at once both end up with the same keys. It is never written again;
`replace` puts the old one aside and keeps it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec import Meta

from p2psync.core.ids import DeviceId
from p2psync.errors import ExitCode, UserError
from p2psync.protocol import envelope, pairkey
from p2psync.protocol.signing import statement
from p2psync.protocol.signing import verify as verify  # the other half of `Identity.sign`

KEY_FILE: Final = "key.json"
_NEW: Final = ".new"  # ends the name of a file that was not put in place yet
_KEY_FILE_BYTES: Final = 4096
_Seed = Annotated[bytes, Meta(min_length=32, max_length=32)]


class Identity:
    """The keys of one device; they leave this object only as `encoded`, for the key file."""

    def __init__(self, signing: Ed25519PrivateKey, receiving: X25519PrivateKey) -> None:
        self._signing = signing
        self._receiving = receiving
        self.device = DeviceId(signing.public_key().public_bytes_raw())
        """The Ed25519 public key: this device's name."""
        self.key = receiving.public_key().public_bytes_raw()
        """The X25519 public key, 32 bytes."""

    def __repr__(self) -> str:
        return f"Identity({self.device.short})"

    def sign(self, label: bytes, *fields: bytes) -> bytes:
        """Return the 64-byte signature of `signing.statement(label, *fields)`."""
        return self._signing.sign(statement(label, *fields))

    def exchange(self, peer_key: bytes, peer: DeviceId) -> bytes:
        """Return the pair key shared with `peer`, whose X25519 key is `peer_key`: 32 bytes.

        Raises:
            ValueError: it is no key with which a secret arises.
        """
        return pairkey.pair_key(self._receiving, peer_key, self.device, peer)

    def unseal(self, sealed: bytes, info: bytes) -> bytes:
        """Open what HPKE sealed to `key` with the same info; raise ValueError if it is not."""
        try:
            return envelope.SUITE.decrypt(sealed, self._receiving, info)
        except InvalidTag as error:
            raise ValueError("not sealed to this device") from error

    def encoded(self) -> bytes:
        """Return what the key file holds: the secrets themselves."""
        kept = _Kept(1, self._signing.private_bytes_raw(), self._receiving.private_bytes_raw())
        return msgspec.json.encode(kept) + b"\n"


class _Kept(msgspec.Struct):
    """The key file's content; msgspec writes bytes as base64."""

    version: int
    ed25519: _Seed
    x25519: _Seed


def new_identity() -> Identity:
    """Make the keys of a new device, kept nowhere yet."""
    return Identity(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())


def load_or_create(directory: Path) -> Identity:
    """Return the device's keys from `directory`, made at first use and durable on return.

    The directory is made with mode 0700 if it is missing. Safe when several processes come
    for the first time at once: all get the same keys.

    Raises:
        UserError: the keys cannot be read or kept, are damaged, or others could have read or
            changed them.
    """
    place = directory / KEY_FILE
    with _explained(place):
        _prepare(directory)
        while True:
            try:
                identity = _load(place)
                break
            except FileNotFoundError:
                _put(place, new_identity())
        _remove_leftovers(directory)
        return identity


def replace(directory: Path) -> Identity:
    """Make this a new device: new keys in place, the old file kept beside them.

    The old file becomes `key.json.old-1`, or the next free number, whatever it held.

    Raises:
        UserError: as `load_or_create`, except for damage, which this mends.
    """
    place = directory / KEY_FILE
    with _explained(place):
        _prepare(directory)
        identity = new_identity()
        fresh = _write(place, identity)
        _keep_aside(place)
        os.replace(fresh, place)
        _sync_directory(directory)
        return identity


@contextlib.contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Turn what the system says into a sentence for the person."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot keep this device's key in {place}: {error.strerror}", ExitCode.NO_AGENT
        ) from error


def _refuse(message: str) -> UserError:
    return UserError(message, ExitCode.NO_AGENT)


def _prepare(directory: Path) -> None:
    """Make the directory if need be; refuse one in which others could swap files."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        _sync_directory(directory.parent)
    found = directory.stat()
    if found.st_uid not in (os.geteuid(), 0):
        raise _refuse(f"{directory} belongs to another user")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise _refuse(f"others may write in {directory}; run: chmod 700 {directory}")


def _load(place: Path) -> Identity:
    """Read the key file; FileNotFoundError when there is none."""
    body = _read_private(place)
    try:
        kept = msgspec.json.decode(body, type=_Kept)
    except ValueError as error:
        raise _refuse(
            f"{place} is damaged; restore it from a backup, or run: p2psync id --new"
        ) from error
    if kept.version != 1:
        raise _refuse(f"{place} was written by a newer version of p2psync")
    return Identity(
        Ed25519PrivateKey.from_private_bytes(kept.ed25519),
        X25519PrivateKey.from_private_bytes(kept.x25519),
    )


def _read_private(place: Path) -> bytes:
    """Return the content of a file that nobody else can have read or written."""
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise _refuse(f"{place} is not a file of this user")
        if found.st_mode & 0o077:
            raise _refuse(f"others may read or change {place}; run: chmod 600 {place}")
        return os.read(descriptor, _KEY_FILE_BYTES)
    finally:
        os.close(descriptor)


def _put(place: Path, identity: Identity) -> None:
    """Put a key file in place unless there is one by now."""
    fresh = _write(place, identity)
    # A process that came earlier may have put its own in place and removed ours: both are fine.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.link(fresh, place)
        _sync_directory(place.parent)
    fresh.unlink(missing_ok=True)


def _write(place: Path, identity: Identity) -> Path:
    """Write a complete, durable key file beside its place; return where."""
    fresh = place.with_name(f"{place.name}.{secrets.token_hex(8)}{_NEW}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # whatever the umask took away
        file.write(identity.encoded())
        file.flush()
        os.fsync(descriptor)
    return fresh


def _keep_aside(place: Path) -> None:
    """Give the file in place, if there is one, a second name that stays."""
    number = 1
    while True:
        try:
            os.link(place, place.with_name(f"{place.name}.old-{number}"), follow_symlinks=False)
        except FileExistsError:
            number += 1
        except FileNotFoundError:
            return
        else:
            return


def _remove_leftovers(directory: Path) -> None:
    """Remove what a crash between writing and putting in place left behind."""
    for leftover in directory.glob(f"{KEY_FILE}.*{_NEW}"):
        leftover.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
