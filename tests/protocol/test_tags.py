"""Announcements: peers find each other by them, strangers learn next to nothing."""

from __future__ import annotations

import pytest

from p2psync.core.ids import DeviceId
from p2psync.protocol import tags
from p2psync.protocol.pairkey import KnownPeer, derive, direction, mac
from tests.support.protocol import device, known

ANN, BOB, EVE = device("ann"), device("bob"), device("eve")
NONCE = b"n" * 16
PORT = 40123
FILLER = b"".join(number.to_bytes(6, "big") for number in range(tags.FILLER_BYTES // 6))


def many(count: int) -> list[KnownPeer]:
    return [
        KnownPeer(DeviceId(n.to_bytes(32, "big")), bytes([n % 256] * 32)) for n in range(count)
    ]


def test_a_peer_recognises_the_announcement() -> None:
    """Bob finds Ann among his peers; Ann's own announcement is nobody to herself."""
    announced = tags.make_tags(
        ANN.device, [known(ANN, EVE), known(ANN, BOB)], NONCE, PORT, FILLER
    )
    peers = [known(BOB, EVE), known(BOB, ANN)]
    assert tags.match(announced, NONCE, PORT, BOB.device, peers) == 1
    assert tags.match(announced, NONCE, PORT, ANN.device, [known(ANN, BOB)]) is None


def test_t01_it_holds_for_one_nonce_and_port_only() -> None:
    """Tags copied into another announcement match nobody."""
    announced = tags.make_tags(ANN.device, [known(ANN, BOB)], NONCE, PORT, FILLER)
    peers = [known(BOB, ANN)]
    assert tags.match(announced, b"m" * 16, PORT, BOB.device, peers) is None
    assert tags.match(announced, NONCE, PORT + 1, BOB.device, peers) is None
    assert tags.match([], NONCE, PORT, BOB.device, peers) is None


@pytest.mark.parametrize(
    ("count", "size"), [(0, 8), (8, 8), (9, 16), (17, 32), (33, 128), (128, 128), (200, 128)]
)
def test_t14_the_number_of_peers_shows_in_four_steps_only(count: int, size: int) -> None:
    """Tags are filled up to 8, 16, 32 or 128, all of six bytes, in no order."""
    announced = tags.make_tags(ANN.device, many(count), NONCE, PORT, FILLER)
    assert len(announced) == size
    assert all(len(tag) == 6 for tag in announced)
    assert announced == sorted(announced)


def test_t02_an_endless_announcement_is_cut() -> None:
    """Only as many tags are looked at as an honest announcement has."""
    announced = tags.make_tags(ANN.device, [known(ANN, BOB)], NONCE, PORT, FILLER)
    peers = [known(BOB, ANN)]
    flood = [bytes(6)] * 1000 + announced
    assert tags.match(flood, NONCE, PORT, BOB.device, peers) is None


def test_filler_must_be_enough() -> None:
    """Too little randomness is refused rather than sent."""
    with pytest.raises(ValueError, match="768 bytes"):
        tags.make_tags(ANN.device, [], NONCE, PORT, FILLER[:-1])


def test_a_pair_key_is_shared_by_two_and_only_two() -> None:
    """Both ends compute the same; every pair has another; repr does not show it."""
    assert known(ANN, BOB).pair_key == known(BOB, ANN).pair_key
    assert known(ANN, BOB).pair_key != known(ANN, EVE).pair_key
    assert "pair_key" not in repr(known(ANN, BOB))


def test_what_is_derived_differs_by_use_and_direction() -> None:
    """Keys for different uses or directions have nothing to do with each other."""
    key = known(ANN, BOB).pair_key
    there, back = direction(ANN.device, BOB.device), direction(BOB.device, ANN.device)
    derived = {
        derive(key, b"a"),
        derive(key, b"b"),
        derive(key, b"a", there),
        derive(key, b"a", back),
        mac(key, b"a"),
        mac(key, b"a", there),
        mac(key, b"a", there[:32], there[32:]),
    }
    assert len(derived) == 7
    assert all(len(secret) == 32 for secret in derived)


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), b"\x01" + bytes(31)])
def test_a_key_that_makes_no_secret_is_refused(key: bytes) -> None:
    """Keys of small order would give a pair key that anybody knows."""
    with pytest.raises(ValueError, match="key"):
        ANN.exchange(key, BOB.device)
