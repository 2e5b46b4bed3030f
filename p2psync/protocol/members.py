"""Who is a member of a folder: signed rows that only grow in number, and one way to read them.

A row says that its inviter invited a device, or revoked it; the inviter signs it together with
the FolderId. Replicas join their rows in any order and read the same members off the same
rows, because `current` is a pure function of the set. It reads in two steps:

1. *Ever invited*: the founder's own row (self-signed, serial 1; the founder is pinned when a
   device joins) and, from there on, every row whose inviter has a row of serial
   `inviter_serial` among them, and whose serial is 1 or follows one among them. This set only
   grows. Revoking rows signed by anyone in it count, for ever: a revocation never waits for
   the outcome of another one, and of two devices that revoke each other both are out.
2. *Standing*: again from the founder, along invitations only. A row signed by a device that
   has been revoked at that serial or later counts only if every row that revoked it says it
   is `kept`. So forgetting a stolen device takes along whoever it invites afterwards, but not
   those whom the one who forgot it knew at that moment (two who forget it apart from each
   other keep whom both knew: the others need a new code).

A device is a member by its standing row of the highest serial, unless that serial or a higher
one was revoked. Only a fresh invitation with the next serial undoes a revocation. Serials
count up one by one, so nobody can put a device out of reach of a next one.

What a hostile member can do: invite others and revoke others, as any member can; fill the list
up to its bound. What it cannot: speak for somebody else or for another folder, or stay in by
revoking itself and keeping its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from p2psync.core.ids import DeviceId, FolderId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.messages import MemberRow
from p2psync.protocol.signing import Signer, statement, verify

READ_WRITE: Final = "rw"
"""The role of every member, to begin with."""

_USE: Final = b"member"
_Place = tuple[bytes, int]  # a device and a serial


def sign_row(
    identity: Signer,
    folder: FolderId,
    device: DeviceId,
    key: bytes,
    name: str,
    role: str = READ_WRITE,
    *,
    serial: int = 1,
    revoked: bool = False,
    inviter_serial: int = 1,
    kept: Iterable[bytes] = (),
) -> MemberRow:
    """Return a row about `device` signed by this device; see `invite` and `revoke` first."""
    unsigned = MemberRow(
        bytes(device),
        key,
        name,
        role,
        bytes(identity.device),
        serial,
        revoked,
        b"",
        inviter_serial,
        tuple(sorted(kept)),
    )
    signature = identity.sign(_USE, folder, _signed_part(unsigned))
    return msgspec.structs.replace(unsigned, signature=signature)


def found(identity: Signer, folder: FolderId, name: str) -> MemberRow:
    """Return the first row of a new folder: its founder's, signed by itself."""
    return sign_row(identity, folder, identity.device, identity.key, name)


def invite(
    identity: Signer,
    folder: FolderId,
    rows: Iterable[MemberRow],
    founder: DeviceId,
    device: DeviceId,
    key: bytes,
    name: str,
    role: str = READ_WRITE,
) -> MemberRow:
    """Return the row that makes `device` a member, or the one by which it is one already.

    Raises:
        LocalProtocolError: this device is no member itself, or the list is full.
    """
    read = _Reading(rows, founder)
    standing = read.current.get(device)
    if standing is not None and (standing.key, standing.name, standing.role) == (
        key,
        name,
        role,
    ):
        return standing
    if len(read.rows) >= limits.MEMBER_ROWS:
        raise LocalProtocolError("the member list is full")
    serial = 1 + read.last_serial(device)
    return sign_row(
        identity,
        folder,
        device,
        key,
        name,
        role,
        serial=serial,
        inviter_serial=read.serial_of(identity.device),
    )


def revoke(
    identity: Signer,
    folder: FolderId,
    rows: Iterable[MemberRow],
    founder: DeviceId,
    device: DeviceId,
) -> MemberRow | None:
    """Return the row that ends the membership of `device`; None if it is no member.

    Whom the device invited, as far as this device knows, stays a member.

    Raises:
        LocalProtocolError: this device is no member itself.
    """
    read = _Reading(rows, founder)
    member = read.current.get(device)
    if member is None:
        return None
    kept = [
        mark_of(row) for row in read.standing if row.inviter == device and row.device != device
    ]
    return sign_row(
        identity,
        folder,
        device,
        member.key,
        member.name,
        member.role,
        serial=member.serial,
        revoked=True,
        inviter_serial=read.serial_of(identity.device),
        kept=kept,
    )


def verify_rows(
    folder: FolderId, rows: Sequence[MemberRow], known: Iterable[MemberRow] = ()
) -> list[MemberRow]:
    """Return those of a peer's rows that are not `known`, each once, all signed as they say.

    Whether they make anybody a member is for `current` to say, over all rows together.

    Raises:
        RemoteProtocolError: a signature is wrong, or there would be too many rows.
    """
    had = set(known)
    fresh = sorted(set(rows) - had, key=_order)
    if len(had) + len(fresh) > limits.MEMBER_ROWS:
        raise RemoteProtocolError(f"a member list of more than {limits.MEMBER_ROWS} rows")
    for row in fresh:
        if not verify(DeviceId(row.inviter), _USE, row.signature, folder, _signed_part(row)):
            raise RemoteProtocolError("a member row that nobody signed")
    return fresh


def founder_of(rows: Iterable[MemberRow]) -> DeviceId:
    """Return who founded the folder, for a device that joins it with these verified rows.

    Raises:
        RemoteProtocolError: there is not exactly one self-signed row of serial 1.
    """
    founders = {row.device for row in rows if _is_founding(row)}
    if len(founders) != 1:
        raise RemoteProtocolError(f"a member list with {len(founders)} founders")
    return DeviceId(founders.pop())


def current(rows: Iterable[MemberRow], founder: DeviceId) -> dict[DeviceId, MemberRow]:
    """Return the members: each device with the row by which it is one.

    rows: verified (`verify_rows`), in any order.
    """
    return _Reading(rows, founder).current


def chain(
    rows: Iterable[MemberRow], founder: DeviceId, devices: Iterable[DeviceId]
) -> list[MemberRow]:
    """Return the few rows that show how these members came in, the founder's first.

    Enough to join with; all others follow before any entry does (message 4 of a pairing has
    little room).
    """
    read = _Reading(rows, founder)
    shown: set[MemberRow] = set()
    wanted = [_place(read.current[device]) for device in devices if device in read.current]
    looked_at: set[_Place] = set()
    while wanted:
        place = wanted.pop()
        if place not in looked_at:
            looked_at.add(place)
            rows_there = {read.ever[place], read.places.get(place, read.ever[place])}
            shown |= rows_there
            wanted += [needed for row in rows_there for needed in _needed_ever(row)]
    return sorted(shown, key=lambda row: (not _is_founding(row), _order(row)))


def mark_of(row: MemberRow) -> bytes:
    """Return the 16 bytes by which a revoking row names a row it keeps."""
    return hashlib.sha256(statement(b"member kept", _signed_part(row))).digest()[:16]


class _Reading:
    """What one set of verified rows says, worked out once."""

    def __init__(self, rows: Iterable[MemberRow], founder: DeviceId) -> None:
        self.rows = frozenset(rows)
        invitations = [
            row
            for row in sorted(self.rows, key=_order)
            if not row.revoked
            and (row.inviter != row.device or (row.device == founder and _is_founding(row)))
        ]
        ever = _close(invitations, _needed_ever, lambda row: True)
        self.ever = _first_of_each_place(ever)
        self._revocations = self._counting_revocations()
        self.standing = _close(ever, _needed_standing, self._is_kept)
        self.places = _first_of_each_place(self.standing)
        self.current = self._current()

    def serial_of(self, device: DeviceId) -> int:
        """Return the serial by which `device` is a member now."""
        if device not in self.current:
            raise LocalProtocolError("only a member signs member rows")
        return self.current[device].serial

    def last_serial(self, device: DeviceId) -> int:
        """Return the highest serial ever given to `device`; 0: none."""
        return max((serial for known, serial in self.ever if known == device), default=0)

    def _counting_revocations(self) -> dict[bytes, list[MemberRow]]:
        """Return, by device, the revoking rows that somebody ever invited signed."""
        revocations: dict[bytes, list[MemberRow]] = {}
        for row in self.rows:
            signer = (row.inviter, row.inviter_serial)
            if row.revoked and signer in self.ever and _place(row) in self.ever:
                revocations.setdefault(row.device, []).append(row)
        return revocations

    def _is_kept(self, row: MemberRow) -> bool:
        """Say whether every revocation of the row's inviter lets the row count."""
        return _is_founding(row) or all(
            mark_of(row) in revocation.kept
            for revocation in self._revocations.get(row.inviter, ())
            if revocation.serial >= row.inviter_serial
        )

    def _current(self) -> dict[DeviceId, MemberRow]:
        latest = {
            DeviceId(device): self.places[device, serial]
            for device, serial in sorted(self.places)
        }
        return {
            device: row
            for device, row in latest.items()
            if all(
                revocation.serial < row.serial
                for revocation in self._revocations.get(device, ())
            )
        }


def _close(
    rows: Iterable[MemberRow],
    needed: Callable[[MemberRow], list[_Place]],
    counts: Callable[[MemberRow], bool],
) -> list[MemberRow]:
    """Return the rows that count and whose needed places are filled by rows before them.

    Each row is looked at once per place it needs, whatever the order they come in.
    """
    filled: set[_Place] = set()
    waiting: dict[_Place, list[MemberRow]] = {}
    admitted: list[MemberRow] = []
    for candidate in rows:
        ready = [candidate] if counts(candidate) else []
        while ready:
            row = ready.pop()
            missing = next((place for place in needed(row) if place not in filled), None)
            if missing is not None:
                waiting.setdefault(missing, []).append(row)
                continue
            admitted.append(row)
            filled.add(_place(row))
            ready += waiting.pop(_place(row), [])
    return admitted


def _first_of_each_place(rows: Iterable[MemberRow]) -> dict[_Place, MemberRow]:
    first: dict[_Place, MemberRow] = {}
    for row in rows:
        first.setdefault(_place(row), row)
    return first


def _needed_standing(row: MemberRow) -> list[_Place]:
    return [] if _is_founding(row) else [(row.inviter, row.inviter_serial)]


def _needed_ever(row: MemberRow) -> list[_Place]:
    before = [(row.device, row.serial - 1)] if row.serial > 1 else []
    return _needed_standing(row) + before


def _is_founding(row: MemberRow) -> bool:
    return row.device == row.inviter and row.serial == 1 and not row.revoked


def _place(row: MemberRow) -> _Place:
    return row.device, row.serial


def _order(row: MemberRow) -> bytes:
    """Return what rows are sorted by, so that their order of arrival plays no part."""
    return _signed_part(row) + row.signature


def _signed_part(row: MemberRow) -> bytes:
    """Return all fields of a row but the signature, each after its length."""
    return statement(
        b"member row",
        row.device,
        row.key,
        row.name.encode(),
        row.role.encode(),
        row.inviter,
        row.serial.to_bytes(8, "big"),
        bytes([row.revoked]),
        row.inviter_serial.to_bytes(8, "big"),
        b"".join(row.kept),
    )
