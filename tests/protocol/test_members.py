"""Members: the same rows make the same members everywhere, and nobody comes in unsigned."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.core.ids import FolderId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits, members
from p2psync.protocol.messages import MemberRow
from tests.support.protocol import device

FOLDER = FolderId(b"f" * 16)
ANN, BOB, CAT, DAN, EVE = (device(name) for name in ("ann", "bob", "cat", "dan", "eve"))
ALL = (ANN, BOB, CAT, DAN, EVE)
NAMES = {identity.device: name for identity, name in zip(ALL, "abcde", strict=True)}


class Folder:
    """A member list under construction, founded by Ann."""

    def __init__(self) -> None:
        self.rows: list[MemberRow] = [members.found(ANN, FOLDER, "ann")]

    def invite(self, by, whom, name="x") -> MemberRow:
        row = members.invite(by, FOLDER, self.rows, ANN.device, whom.device, whom.key, name)
        self.rows.append(row)
        return row

    def revoke(self, by, whom) -> MemberRow:
        row = members.revoke(by, FOLDER, self.rows, ANN.device, whom.device)
        assert row is not None
        self.rows.append(row)
        return row

    @property
    def names(self) -> str:
        return names(self.rows)


def names(rows: list[MemberRow]) -> str:
    """Return who is a member, one letter each."""
    return "".join(sorted(NAMES[d] for d in members.current(rows, ANN.device)))


def test_the_founder_is_the_first_member() -> None:
    """A folder begins with one self-signed row."""
    folder = Folder()
    assert folder.names == "a"
    assert members.founder_of(folder.rows) == ANN.device
    row = members.current(folder.rows, ANN.device)[ANN.device]
    assert (row.key, row.name, row.role) == (ANN.key, "ann", members.READ_WRITE)


def test_every_member_can_invite() -> None:
    """Trust goes from the founder along invitations."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.invite(BOB, CAT)
    folder.invite(CAT, DAN)
    assert folder.names == "abcd"
    assert members.verify_rows(FOLDER, folder.rows)


def test_inviting_a_member_again_adds_no_row() -> None:
    """The same keys, name and role: the row by which it is a member is returned."""
    folder = Folder()
    row = folder.invite(ANN, BOB)
    assert folder.invite(ANN, BOB) is row
    renamed = folder.invite(ANN, BOB, "new name")
    assert renamed.serial == 2
    assert members.current(folder.rows, ANN.device)[BOB.device].name == "new name"


def test_a_stranger_invites_nobody() -> None:
    """Rows of somebody who was never invited count for nothing, also revoking ones."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.rows += [
        members.sign_row(EVE, FOLDER, DAN.device, DAN.key, "dan"),
        members.sign_row(EVE, FOLDER, BOB.device, BOB.key, "bob", revoked=True),
        members.found(EVE, FOLDER, "eve"),
        members.sign_row(EVE, FOLDER, EVE.device, EVE.key, "eve", serial=2),
    ]
    assert folder.names == "ab"
    with pytest.raises(LocalProtocolError):
        folder.invite(EVE, DAN)
    with pytest.raises(LocalProtocolError):
        folder.revoke(EVE, BOB)


def test_t37_a_revoked_device_is_out_until_it_is_paired_again() -> None:
    """The revocation beats every earlier row, only the next serial undoes it."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.revoke(ANN, BOB)
    assert folder.names == "a"
    folder.rows.append(members.sign_row(ANN, FOLDER, BOB.device, BOB.key, "bob", serial=1))
    assert folder.names == "a"
    assert folder.invite(ANN, BOB).serial == 2
    assert folder.names == "ab"
    folder.revoke(ANN, BOB)
    assert folder.names == "a"


def test_revoking_no_member_gives_no_row() -> None:
    """There is nothing to say about somebody who is not in."""
    folder = Folder()
    assert members.revoke(ANN, FOLDER, folder.rows, ANN.device, BOB.device) is None


def test_a_device_can_revoke_itself() -> None:
    """Leaving is a revocation like any other."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.revoke(BOB, BOB)
    assert folder.names == "a"


def test_t37_whom_a_revoked_device_had_invited_stays() -> None:
    """Forgetting an old laptop does not forget the phone it had brought in."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.invite(BOB, CAT)
    folder.revoke(ANN, BOB)
    assert folder.names == "ac"
    folder.invite(CAT, DAN)
    assert folder.names == "acd"


def test_the_founder_can_be_revoked() -> None:
    """The folder lives on with those the founder had invited."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.invite(BOB, CAT)
    folder.revoke(CAT, ANN)
    assert folder.names == "bc"
    folder.invite(BOB, ANN)
    assert folder.names == "abc"


def test_t37_a_stolen_device_brings_nobody_in_afterwards() -> None:
    """What it signs after (or apart from) its revocation does not count, however it tries."""
    folder = Folder()
    folder.invite(ANN, BOB)
    stolen = Folder()
    stolen.rows = list(folder.rows)
    folder.revoke(ANN, BOB)
    planted = stolen.invite(BOB, EVE)  # the thief's own copy of the list
    assert names(stolen.rows) == "abe"
    again = members.sign_row(BOB, FOLDER, BOB.device, BOB.key, "bob", serial=2)
    keeping = members.sign_row(
        BOB, FOLDER, BOB.device, BOB.key, "bob", revoked=True, kept=[members.mark_of(planted)]
    )
    by_eve = members.sign_row(
        EVE, FOLDER, BOB.device, BOB.key, "bob", revoked=True, kept=[members.mark_of(planted)]
    )
    later = members.sign_row(BOB, FOLDER, EVE.device, EVE.key, "eve", inviter_serial=2)
    assert names([*folder.rows, planted, again, keeping, by_eve, later]) == "a"


def test_two_that_revoke_each_other_are_both_out() -> None:
    """No revocation waits for the outcome of another."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.invite(ANN, CAT)
    one = members.revoke(BOB, FOLDER, folder.rows, ANN.device, CAT.device)
    other = members.revoke(CAT, FOLDER, folder.rows, ANN.device, BOB.device)
    assert names([*folder.rows, one, other]) == "a"


def test_two_apart_keep_only_whom_both_knew() -> None:
    """Bob and Cat forget Dan, and only one of them knew whom Dan had invited: out, not in."""
    folder = Folder()
    for whom in (BOB, CAT, DAN):
        folder.invite(ANN, whom)
    unknowing = members.revoke(CAT, FOLDER, folder.rows, ANN.device, DAN.device)
    folder.invite(DAN, EVE)
    folder.revoke(BOB, DAN)
    assert folder.names == "abce"
    assert names([*folder.rows, unknowing]) == "abc"


def test_t28_serials_cannot_be_inflated() -> None:
    """A revocation far ahead counts for nothing, so a fresh pairing is always possible."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.invite(ANN, EVE)
    far = limits.SEQ_MAX
    folder.rows += [
        members.sign_row(EVE, FOLDER, BOB.device, BOB.key, "b", serial=far, revoked=True),
        members.sign_row(EVE, FOLDER, BOB.device, BOB.key, "b", serial=far),
    ]
    assert folder.names == "abe"
    assert folder.invite(ANN, BOB, "renamed").serial == 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": "eve"},
        {"key": EVE.key},
        {"device": bytes(EVE.device)},
        {"inviter": bytes(BOB.device)},
        {"role": "ro"},
        {"serial": 2},
        {"revoked": True},
        {"inviter_serial": 2},
        {"kept": (bytes(16),)},
        {"signature": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_t27_every_field_is_signed(change) -> None:
    """A row changed in any field is refused."""
    row = Folder().invite(ANN, BOB)
    with pytest.raises(RemoteProtocolError):
        members.verify_rows(FOLDER, [msgspec.structs.replace(row, **change)])


def test_t33_a_row_of_another_folder_is_refused() -> None:
    """The FolderId is part of what is signed."""
    with pytest.raises(RemoteProtocolError):
        members.verify_rows(FolderId(b"g" * 16), Folder().rows)


def test_only_rows_not_known_are_returned_and_checked() -> None:
    """Known rows cost no signature; the rest comes back once each, however often it came."""
    folder = Folder()
    known = list(folder.rows)
    fresh = folder.invite(ANN, BOB)
    assert members.verify_rows(FOLDER, [*folder.rows, fresh], known) == [fresh]
    assert members.verify_rows(FOLDER, known, known) == []


def test_t23_a_member_list_is_bounded() -> None:
    """More rows than the limit are refused before a signature is looked at, and never made."""
    row = Folder().rows[0]
    many = [msgspec.structs.replace(row, name=str(n)) for n in range(limits.MEMBER_ROWS)]
    with pytest.raises(RemoteProtocolError, match="more than"):
        members.verify_rows(FOLDER, many, [row])
    folder = Folder()
    folder.rows += many[1:]
    with pytest.raises(LocalProtocolError):
        folder.invite(ANN, BOB)


def test_a_joining_device_learns_the_founder() -> None:
    """Exactly one self-signed first row, or the list is refused."""
    folder = Folder()
    folder.invite(ANN, BOB)
    assert members.founder_of(folder.rows) == ANN.device
    with pytest.raises(RemoteProtocolError):
        members.founder_of(folder.rows[1:])
    with pytest.raises(RemoteProtocolError):
        members.founder_of([*folder.rows, members.found(EVE, FOLDER, "eve")])


def test_a_chain_is_enough_to_join_with() -> None:
    """The few rows of a chain make the same members of those they are for."""
    folder = Folder()
    for by, whom in ((ANN, BOB), (ANN, CAT), (BOB, DAN), (CAT, EVE)):
        folder.invite(by, whom)
    folder.invite(ANN, DAN, "renamed")
    rows = members.chain(folder.rows, ANN.device, [DAN.device])
    assert names(rows) == "abd"
    assert members.current(rows, ANN.device)[DAN.device].name == "renamed"
    assert members.founder_of(rows) == ANN.device


def test_a_chain_holds_when_an_inviter_was_revoked() -> None:
    """Revocations are left out of a chain; the rows they kept still lead to the founder."""
    folder = Folder()
    folder.invite(ANN, BOB)
    folder.invite(BOB, CAT)
    folder.revoke(CAT, BOB)
    folder.invite(CAT, BOB)
    folder.invite(BOB, DAN)
    rows = members.chain(folder.rows, ANN.device, [DAN.device, EVE.device])
    assert DAN.device in members.current(rows, ANN.device)
    assert not any(row.revoked for row in rows)


STEPS = st.lists(
    st.tuples(
        st.booleans(), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3), st.booleans()
    ),
    max_size=14,
)


def _grown(steps) -> list[MemberRow]:
    """Return the rows of several replicas that acted, some of them apart from each other."""
    first = members.found(ANN, FOLDER, "ann")
    views = [[first] for _ in range(4)]
    for revoking, by, whom, view, sharing in steps:
        rows = views[view]
        signer, subject = ALL[by], ALL[whom]
        try:
            row = (
                members.revoke(signer, FOLDER, rows, ANN.device, subject.device)
                if revoking
                else members.invite(
                    signer, FOLDER, rows, ANN.device, subject.device, subject.key, str(view)
                )
            )
        except LocalProtocolError:
            continue
        if row is not None:
            for told in views if sharing else [rows]:
                told.append(row)
    return [row for rows in views for row in rows]


@settings(max_examples=150, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
def test_convergence_any_order_of_rows_gives_the_same_members(steps, random) -> None:
    """Members are a function of the set: order and repetition change nothing."""
    rows = _grown(steps)
    expected = members.current(rows, ANN.device)
    random.shuffle(rows)
    assert members.current(rows, ANN.device) == expected
    assert members.current(set(rows), ANN.device) == expected


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_authorisation_a_revocation_holds_until_a_fresh_serial(steps) -> None:
    """No member stands by a row at or below a serial that was revoked by an invited device."""
    rows = _grown(steps)
    for member, row in members.current(rows, ANN.device).items():
        revoked = [r.serial for r in rows if r.revoked and r.device == member]
        assert row.serial > max(revoked, default=0)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_chains_make_members_of_those_they_are_for(steps) -> None:
    """Whatever happened, every member can show how it came in."""
    rows = _grown(steps)
    for member in members.current(rows, ANN.device):
        shown = members.chain(rows, ANN.device, [member])
        assert member in members.current(shown, ANN.device)
