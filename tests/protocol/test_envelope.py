"""Envelopes: only the right peer reads them, only the right peer can have written them."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.envelope import (
    SUITE,
    Candidate,
    CandidateType,
    Content,
    Kind,
    digest,
    fitting,
    seal,
    unseal,
)
from p2psync.protocol.envelope import _info as info
from p2psync.protocol.pairkey import direction
from tests.support.protocol import device, spoiled

ANN, BOB, EVE = device("ann"), device("bob"), device("eve")
V4 = Candidate(CandidateType.HOST, ip_address("192.168.1.20"), 40123)
V6 = Candidate(CandidateType.REFLEXIVE, ip_address("2001:db8::1"), 65535)
RELAYED = Candidate(CandidateType.RELAYED, ip_address("203.0.113.9"), 0)
OFFER = Content(Kind.OFFER, b"s" * 16, b"", b"e" * 16, b"f" * 32, (V4, V6, RELAYED))
ANSWER = Content(Kind.ANSWER, b"s" * 16, digest(OFFER), b"e" * 16, b"f" * 32, (V6,))


def ann_to_bob(content: Content) -> bytes:
    return seal(ANN, BOB.device, BOB.key, content)


@pytest.mark.parametrize("content", [OFFER, ANSWER], ids=["offer", "answer"])
def test_the_peer_reads_what_was_sealed(content: Content) -> None:
    """All fields arrive, candidates in order."""
    assert unseal(BOB, ANN.device, ann_to_bob(content)) == content


def test_nobody_else_reads_it() -> None:
    """Another device cannot open it, nor the sender itself."""
    sealed = ann_to_bob(OFFER)
    for other in (EVE, ANN):
        with pytest.raises(RemoteProtocolError):
            unseal(other, ANN.device, sealed)


def test_t05_it_is_from_the_peer_it_says_and_in_this_direction() -> None:
    """Neither another sender's nor one's own envelope, sent back, is taken."""
    with pytest.raises(RemoteProtocolError):
        unseal(BOB, EVE.device, ann_to_bob(OFFER))
    with pytest.raises(RemoteProtocolError):
        unseal(ANN, BOB.device, ann_to_bob(OFFER))


def test_t04_what_the_peer_did_not_sign_is_refused() -> None:
    """Anybody can seal to a public key; without the signature it says nothing."""
    between = direction(ANN.device, BOB.device)
    plain = BOB.unseal(ann_to_bob(OFFER), info(between))
    forged = plain[:-64] + EVE.sign(b"envelope", between, plain[:-64])
    sealed = SUITE.encrypt(forged, _public(BOB), info(between))
    with pytest.raises(RemoteProtocolError, match="did not sign"):
        unseal(BOB, ANN.device, sealed)


def _public(identity):
    return X25519PublicKey.from_public_bytes(identity.key)


def _sealed_body(body: bytes) -> bytes:
    """Return an envelope that Ann truly signed, whatever is in it."""
    between = direction(ANN.device, BOB.device)
    plain = body + ANN.sign(b"envelope", between, body)
    return SUITE.encrypt(plain, _public(BOB), info(between))


FIXED = b"s" * 16 + b"e" * 16 + b"f" * 32


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x02\x01" + FIXED, id="another version"),
        pytest.param(b"\x01\x03" + FIXED, id="another kind"),
        pytest.param(b"\x01\x01" + FIXED[:-1], id="an offer too short"),
        pytest.param(b"\x01\x02" + FIXED, id="an answer without its offer"),
        pytest.param(b"\x01\x01" + FIXED + b"\x01\x7f\0\0\x01\x09", id="half a candidate"),
        pytest.param(b"\x01\x01" + FIXED + b"\x81" + bytes(17), id="half a v6 candidate"),
        pytest.param(b"\x01\x01" + FIXED + b"\x01\x7f\0\0\x01\0\x09" * 17, id="17 candidates"),
    ],
)
def test_t32_a_peer_that_signs_nonsense_is_refused(body: bytes) -> None:
    """A valid signature over a broken body raises RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        unseal(BOB, ANN.device, _sealed_body(body))


def test_candidates_of_new_types_are_left_out() -> None:
    """A newer peer may know more ways; the others still count."""
    body = b"\x01\x01" + FIXED + b"\x21\x7f\0\0\x01\0\x09" + b"\x01\x7f\0\0\x01\0\x09"
    content = unseal(BOB, ANN.device, _sealed_body(body))
    assert content.candidates == (Candidate(CandidateType.HOST, ip_address("127.0.0.1"), 9),)


def test_t32_no_spoiled_envelope_opens() -> None:
    """Any byte changed, missing or added."""
    for sealed in spoiled(ann_to_bob(ANSWER)):
        with pytest.raises(RemoteProtocolError):
            unseal(BOB, ANN.device, sealed)


@given(st.binary(max_size=600))
def test_t32_random_bytes_are_refused(data: bytes) -> None:
    """A mailbox may hold anything."""
    with pytest.raises(RemoteProtocolError):
        unseal(BOB, ANN.device, data)


def test_t21_more_than_480_bytes_are_not_even_opened() -> None:
    """A mailbox that hands over more is refused by its length."""
    with pytest.raises(RemoteProtocolError, match="481 bytes"):
        unseal(BOB, ANN.device, bytes(481))


def test_sixteen_ipv4_candidates_fit() -> None:
    """An answer with 16 IPv4 candidates stays below 480 bytes."""
    content = dataclasses.replace(ANSWER, candidates=(V4,) * 16)
    sealed = ann_to_bob(content)
    assert len(sealed) <= limits.ENVELOPE_BYTES
    assert unseal(BOB, ANN.device, sealed) == content


@pytest.mark.parametrize(
    ("kind", "candidates", "count"),
    [
        (Kind.OFFER, [V4] * 20, 16),
        (Kind.ANSWER, [V6] * 20, 14),
        (Kind.OFFER, [V6] * 20, 15),
        (Kind.ANSWER, [V6] * 12 + [V4] * 4, 16),
        (Kind.OFFER, [], 0),
    ],
)
def test_the_best_candidates_that_fit_are_chosen(kind, candidates, count) -> None:
    """What does not fit is cut off at the end, and the rest makes a valid envelope."""
    chosen = fitting(kind, candidates)
    assert chosen == tuple(candidates[:count])
    base = OFFER if kind is Kind.OFFER else ANSWER
    sealed = ann_to_bob(dataclasses.replace(base, candidates=chosen))
    assert len(sealed) <= limits.ENVELOPE_BYTES


@pytest.mark.parametrize(
    "change",
    [
        {"candidates": (V4,) * 17},
        {"candidates": (V6,) * 16},
        {"session": b"short"},
        {"seed": b"short"},
        {"fingerprint": b"short"},
        {"offer": b"o" * 32},
    ],
    ids=str,
)
def test_content_that_does_not_fit_is_a_bug(change) -> None:
    """Fields of other sizes or too many candidates are refused here, not by the peer."""
    with pytest.raises(LocalProtocolError):
        ann_to_bob(dataclasses.replace(OFFER, **change))


def test_nothing_is_sealed_to_a_key_that_hides_nothing() -> None:
    """A key of small order is refused."""
    with pytest.raises(ValueError, match="shared key"):
        seal(ANN, BOB.device, bytes(32), OFFER)


def test_an_offer_has_one_digest() -> None:
    """Sealed twice it differs, its digest does not; any field changes the digest."""
    assert ann_to_bob(OFFER) != ann_to_bob(OFFER)
    assert digest(unseal(BOB, ANN.device, ann_to_bob(OFFER))) == digest(OFFER)
    assert digest(dataclasses.replace(OFFER, candidates=())) != digest(OFFER)
    assert len(digest(OFFER)) == 32
