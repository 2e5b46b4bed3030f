"""Everything that travels outside a session, byte for byte: changes happen only on purpose.

Keys, nonces and seeds are fixed, and Ed25519 signs alike every time, so whole conversations can
be compared. HPKE draws its own randomness: of an envelope the signed content is compared.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from p2psync.core.ids import FolderId
from p2psync.protocol import envelope, framing, members, tags, words
from p2psync.protocol.auth import AuthDialler, AuthListener
from p2psync.protocol.pairing import PairingAccepter, PairingSharer, Welcome
from p2psync.protocol.pairkey import derive, direction
from tests.support.protocol import deliver, device, known

GOLDEN = Path(__file__).parents[1] / "golden" / "conversations.json"
ANN, BOB = device("ann"), device("bob")
FOLDER = FolderId(bytes(range(16)))


def _frames() -> list[bytes]:
    return [framing.header(length) for length in (1, 2**20, 2**20 + 1, 2**22 + 64)]


def _keys() -> list[bytes]:
    pair_key = known(ANN, BOB).pair_key
    return [pair_key, derive(pair_key, b"use"), derive(pair_key, b"use", _there())]


def _there() -> bytes:
    return direction(ANN.device, BOB.device)


def _authentication() -> list[bytes]:
    ann = AuthDialler(ANN, known(ANN, BOB), b"b" * 32, b"d" * 32, (1, 2), now=0.0)
    bob = AuthListener(BOB, [known(BOB, ANN)], b"b" * 32, b"l" * 32, (1,), now=0.0)
    return deliver(ann, bob) + deliver(bob, ann) + deliver(ann, bob)


def _rows() -> list[members.MemberRow]:
    rows = [members.found(BOB, FOLDER, "bob")]
    rows.append(members.invite(BOB, FOLDER, rows, BOB.device, ANN.device, ANN.key, "änn"))
    return rows


def _members() -> list[bytes]:
    rows = _rows()
    revoked = members.revoke(ANN, FOLDER, rows, BOB.device, BOB.device)
    assert revoked is not None
    return [row.signature for row in [*rows, revoked]] + [members.mark_of(rows[1])]


def _pairing() -> list[bytes]:
    code = words.make_code([1, 2, 3, 4])
    ann = PairingAccepter(ANN, code, "ann", b"a" * 16, b"1" * 32, deadline=9.0)
    bob = PairingSharer(BOB, code, b"2" * 32, deadline=9.0)
    sent = deliver(ann, bob) + deliver(bob, ann) + deliver(ann, bob)
    bob.verify_guess()
    own = (bytes(BOB.device), BOB.key, "bob", b"b" * 16)
    what = (bytes(FOLDER), "photos", "rw", 12, 3456, True, bytes(BOB.device), _rows())
    bob.accept(Welcome(*own, *what))
    return sent + deliver(bob, ann)


def _envelopes() -> list[bytes]:
    candidates = (
        envelope.Candidate(envelope.CandidateType.HOST, ip_address("192.0.2.1"), 1),
        envelope.Candidate(envelope.CandidateType.RELAYED, ip_address("2001:db8::1"), 65535),
    )
    fixed = (b"e" * 16, b"f" * 32, candidates)
    offer = envelope.Content(envelope.Kind.OFFER, b"s" * 16, b"", *fixed)
    answer = envelope.Content(envelope.Kind.ANSWER, b"s" * 16, envelope.digest(offer), *fixed)
    info = envelope._info(_there())
    return [
        BOB.unseal(envelope.seal(ANN, BOB.device, BOB.key, content), info)
        for content in (offer, answer)
    ]


def _tags() -> list[bytes]:
    return tags.make_tags(ANN.device, [known(ANN, BOB)], b"n" * 16, 7, bytes(768))


MAKERS = {
    "frames": _frames,
    "keys": _keys,
    "authentication": _authentication,
    "members": _members,
    "pairing": _pairing,
    "envelopes": _envelopes,
    "tags": _tags,
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_bytes_are_as_they_were(name: str) -> None:
    """The wire form of the first version stays what it is."""
    golden = json.loads(GOLDEN.read_text())
    assert [data.hex() for data in MAKERS[name]()] == golden[name]
