"""Members: kept durably, learnt from each other, and looked up at each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from p2psync.core.ids import FolderId
from p2psync.engine.membership import Membership
from p2psync.errors import RemoteProtocolError
from p2psync.identity.keys import Identity
from p2psync.protocol import members
from p2psync.protocol.messages import MemberRow
from p2psync.store.home import FolderRecord, Home
from tests.support.engines import town
from tests.support.protocol import device

FOLDER, OTHER = FolderId(b"f" * 16), FolderId(b"o" * 16)


class Desk:
    """One device's member lists, in a home on disk."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.identity: Identity = device(name)
        self.changes = 0
        self._path = path / f"{name}.db"
        self.open()

    def open(self) -> None:
        """Read everything from the disk."""
        self.home = Home.open(self._path)
        self.membership = Membership(self.home, self.identity, self._changed)

    def reopen(self) -> None:
        """Forget what is only in memory."""
        self.home.close()
        self.open()

    def _changed(self) -> None:
        self.changes += 1

    def founds(self, folder: FolderId = FOLDER) -> None:
        """Found a folder and have a replica of it."""
        self.membership.found(folder, self.name)
        self._adds(folder)

    def invites(self, other: Desk, folder: FolderId = FOLDER) -> None:
        """Invite and let join."""
        self.membership.invite(folder, other.identity.device, other.identity.key, other.name)
        rows = self.membership.invitation(folder, other.identity.device)
        other.membership.join(folder, rows, self.membership.founder(folder))
        other._adds(folder)

    def tells(self, other: Desk, folder: FolderId = FOLDER) -> bool:
        """Tell all rows, as at the start of a session."""
        rows = self.membership.rows(folder)
        return other.membership.learn(folder, rows, self.identity.device)

    def knows(self, folder: FolderId = FOLDER) -> str:
        """Return the names of the members, sorted."""
        return "".join(sorted(row.name[0] for row in self.membership.of(folder).values()))

    def _adds(self, folder: FolderId) -> None:
        key = bytes(folder)[:8] + self.name.encode().ljust(8)
        root = f"/{self.name}/{folder.hex()}".encode()
        self.home.add_folder(FolderRecord(key, folder, root, "name"))


Make = Callable[[str], Desk]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Make]:
    """Makes devices; closes their homes."""
    made: list[Desk] = []

    def make(name: str) -> Desk:
        made.append(Desk(tmp_path, name))
        return made[-1]

    yield make
    for one in made:
        one.home.close()


def test_authorisation_only_members_may_sync(desk: Make) -> None:
    """The founder and whom it invited, on both sides; nobody else, and no other folder."""
    ann, bob, eve = desk("ann"), desk("bob"), desk("eve")
    ann.founds()
    ann.founds(OTHER)
    ann.invites(bob)
    assert ann.membership.may_sync(FOLDER, bob.identity.device)
    assert bob.membership.may_sync(FOLDER, ann.identity.device)
    assert not ann.membership.may_sync(OTHER, bob.identity.device)
    assert not ann.membership.may_sync(FOLDER, eve.identity.device)
    assert not bob.membership.may_sync(OTHER, ann.identity.device)
    assert set(ann.membership.peers()) == {bob.identity.device}


def test_durable_members_are_there_after_a_restart(desk: Make) -> None:
    """What invite, join and revoke say is on disk when they return."""
    ann, bob = desk("ann"), desk("bob")
    ann.founds()
    ann.invites(bob)
    ann.reopen()
    bob.reopen()
    assert ann.knows() == bob.knows() == "ab"
    ann.membership.revoke(FOLDER, bob.identity.device)
    ann.reopen()
    assert ann.knows() == "a"


def test_two_pairings_make_three_peers(desk: Make) -> None:
    """A paired with B and with C: B and C learn of each other without a second code."""
    ann, bob, cat = desk("ann"), desk("bob"), desk("cat")
    ann.founds()
    ann.invites(bob)
    ann.invites(cat)
    assert bob.knows() == "ab"
    assert ann.tells(bob)
    assert ann.tells(cat), "the invitation had only the rows to join with"
    assert bob.knows() == cat.knows() == "abc"
    assert cat.identity.device in bob.membership.peers()
    key = bob.membership.known(cat.identity.device, cat.identity.key).pair_key
    assert key == cat.membership.known(bob.identity.device, bob.identity.key).pair_key


def test_every_member_can_invite_and_tell(desk: Make) -> None:
    """C, invited by B, is a member to A as soon as A hears of it, from B or from C itself."""
    ann, bob, cat, dan = desk("ann"), desk("bob"), desk("cat"), desk("dan")
    ann.founds()
    ann.invites(bob)
    bob.invites(cat)
    bob.invites(dan)
    assert cat.tells(ann)
    assert ann.knows() == "abc"
    assert bob.tells(ann)
    assert ann.knows() == "abcd"


def test_silence_known_rows_change_nothing(desk: Make) -> None:
    """Telling the same again is no news to anybody."""
    ann, bob = desk("ann"), desk("bob")
    ann.founds()
    ann.invites(bob)
    before = (ann.changes, bob.changes)
    assert not ann.tells(bob)
    assert not bob.tells(ann)
    assert (ann.changes, bob.changes) == before


def test_t37_a_revocation_reaches_everybody_and_stays(desk: Make) -> None:
    """Whoever hears of it drops the device; old rows told again do not bring it back."""
    ann, bob, eve = desk("ann"), desk("bob"), desk("eve")
    ann.founds()
    ann.invites(eve)
    ann.invites(bob)
    ann.tells(eve)
    before = eve.membership.rows(FOLDER)
    assert ann.membership.revoke(FOLDER, eve.identity.device)
    assert ann.tells(bob)
    assert bob.knows() == ann.knows() == "ab"
    assert not bob.membership.learn(FOLDER, before, eve.identity.device)
    assert not ann.membership.learn(FOLDER, before, eve.identity.device)
    assert bob.knows() == ann.knows() == "ab"
    assert eve.identity.device not in {p.device for p in bob.membership.known_peers()}


def test_t37_only_a_fresh_pairing_undoes_it(desk: Make) -> None:
    """Forgotten and invited again: a member like any other, on every device that hears."""
    ann, bob, cat = desk("ann"), desk("bob"), desk("cat")
    ann.founds()
    ann.invites(bob)
    ann.invites(cat)
    ann.tells(bob)
    ann.membership.revoke(FOLDER, cat.identity.device)
    ann.tells(bob)
    ann.membership.invite(FOLDER, cat.identity.device, cat.identity.key, "cat")
    ann.tells(bob)
    assert bob.knows() == ann.knows() == "abc"


def test_revoking_nobody_changes_nothing(desk: Make) -> None:
    """There is no row to make about a stranger."""
    ann, eve = desk("ann"), desk("eve")
    ann.founds()
    before = ann.changes
    assert not ann.membership.revoke(FOLDER, eve.identity.device)
    assert ann.changes == before


def forged(ann: Desk, eve: Desk) -> dict[str, MemberRow]:
    """Return rows nobody signed as they say."""
    true = members.sign_row(eve.identity, FOLDER, eve.identity.device, eve.identity.key, "eve")
    founding = members.found(ann.identity, FOLDER, "ann")
    return {
        "signed by another": msgspec.structs.replace(true, inviter=bytes(ann.identity.device)),
        "changed name": msgspec.structs.replace(founding, name="mallory"),
        "changed role": msgspec.structs.replace(founding, role="owner"),
        "no signature": msgspec.structs.replace(founding, signature=bytes(64)),
        "of another folder": members.found(ann.identity, OTHER, "ann"),
    }


FORGED = (
    "signed by another",
    "changed name",
    "changed role",
    "no signature",
    "of another folder",
)


@pytest.mark.parametrize("which", FORGED)
def test_t27_forged_rows_of_a_member_end_its_session(desk: Make, which: str) -> None:
    """A false row is a breach; nothing of the message is kept."""
    ann, bob, eve = desk("ann"), desk("bob"), desk("eve")
    ann.founds()
    ann.invites(bob)
    row = forged(ann, eve)[which]
    with pytest.raises(RemoteProtocolError):
        ann.membership.learn(FOLDER, [row], bob.identity.device)
    assert ann.knows() == "ab"


def test_t33_who_is_no_member_gets_no_answer(desk: Make) -> None:
    """False rows, true rows of strangers, rows of folders we lack: silence, and no trace."""
    ann, eve = desk("ann"), desk("eve")
    ann.founds()
    own = members.sign_row(eve.identity, FOLDER, eve.identity.device, eve.identity.key, "eve")
    for folder in (FOLDER, OTHER):
        for row in (own, *forged(ann, eve).values()):
            assert not ann.membership.learn(folder, [row], eve.identity.device)
    assert ann.membership.rows(FOLDER) == [members.found(ann.identity, FOLDER, "ann")]


def test_t37_nobody_joins_with_somebody_elses_list(desk: Make) -> None:
    """A list without us, or with another founder than the one we pinned, is refused."""
    ann, bob, eve = desk("ann"), desk("bob"), desk("eve")
    ann.founds()
    rows = ann.membership.rows(FOLDER)
    with pytest.raises(RemoteProtocolError, match="does not have this device"):
        bob.membership.join(FOLDER, rows, ann.identity.device)
    ann.invites(bob)
    eve.founds()
    eve.membership.invite(FOLDER, bob.identity.device, bob.identity.key, "bob")
    with pytest.raises(RemoteProtocolError, match="another founder"):
        bob.membership.join(FOLDER, eve.membership.rows(FOLDER), eve.identity.device)
    assert bob.knows() == "ab"


def test_a_key_that_is_no_key_is_left_out(desk: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A member with a key of zeros is shown as one and never spoken to; others are."""
    ann, bob, eve = desk("ann"), desk("bob"), desk("eve")
    ann.founds()
    ann.invites(bob)
    ann.membership.invite(FOLDER, eve.identity.device, bytes(32), "eve")
    known = [peer.device for peer in ann.membership.known_peers()]
    assert known == [bob.identity.device]
    assert "no key" in caplog.text


def test_the_last_addresses_survive_a_restart(desk: Make) -> None:
    """Where a peer was last is where it is looked for first."""
    ann, bob = desk("ann"), desk("bob")
    ann.founds()
    ann.invites(bob)
    places = [("192.0.2.7", 4711), ("fe80::1%eth0", 1)]
    ann.membership.seen(bob.identity.device, places)
    ann.reopen()
    assert ann.membership.last_addresses(bob.identity.device) == places


async def test_p01_b_and_c_sync_while_a_is_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A invited B and C and goes away: an edit on B reaches C, over TLS, without a code."""
    async with town(tmp_path, monkeypatch, "a", "b", "c") as made:
        a, b, c = made.machines
        await a.founds()
        a.invites(b)
        a.invites(c)
        at_b, at_c = b.joins(a), c.joins(a)
        await b.meets(a, c)
        await a.stop()
        (at_b / "f").write_text("from b")
        await c.shows(at_c / "f", "from b")
