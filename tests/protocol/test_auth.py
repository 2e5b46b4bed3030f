"""Authentication: two ends of one channel find out who the other is, and nobody else can."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.auth import (
    TRANSITIONS,
    VERSIONS,
    AuthDialler,
    Authenticated,
    AuthListener,
    Input,
    State,
)
from p2psync.protocol.machine import Failed, Steps
from tests.support.protocol import deliver, device, known, spoiled

ANN, BOB, EVE = device("ann"), device("bob"), device("eve")
BINDING = b"b" * 32
OTHER_BINDING = b"o" * 32


def dialler(
    binding: bytes = BINDING, versions: Sequence[int] = VERSIONS, nonce: bytes = b"d" * 32
) -> AuthDialler:
    return AuthDialler(ANN, known(ANN, BOB), binding, nonce, versions, now=0.0)


def listener(
    binding: bytes = BINDING, versions: Sequence[int] = VERSIONS, nonce: bytes = b"l" * 32
) -> AuthListener:
    peers = [known(BOB, EVE), known(BOB, ANN)]
    return AuthListener(BOB, peers, binding, nonce, versions, now=0.0)


def run(ann: AuthDialler, bob: AuthListener) -> list[list[bytes]]:
    """Deliver all three messages; return them."""
    return [deliver(ann, bob), deliver(bob, ann), deliver(ann, bob)]


def failure(machine: AuthDialler | AuthListener) -> str:
    """Return why the machine failed, which it must have, without a word to the other end."""
    assert machine.data_to_send() == []
    (event,) = machine.events()
    assert isinstance(event, Failed)
    assert machine.state is State.FAILED
    assert machine.next_deadline() is None
    return event.reason


def test_two_peers_authenticate_each_other_in_three_messages() -> None:
    """Both learn the other's DeviceId and the version; no message is longer than 200 bytes."""
    ann, bob = dialler(), listener()
    messages = run(ann, bob)
    assert ann.events() == [Authenticated(BOB.device, 1)]
    assert bob.events() == [Authenticated(ANN.device, 1)]
    assert [len(sent) for sent in messages] == [1, 1, 1]
    assert all(len(message) <= 200 for sent in messages for message in sent)
    assert ann.next_deadline() is None
    assert bob.next_deadline() is None


def test_the_listener_trusts_only_the_third_message() -> None:
    """Recognition alone opens nothing: until message 3 there is no event."""
    ann, bob = dialler(), listener()
    deliver(ann, bob)
    assert bob.events() == []
    assert bob.state is State.AWAIT_CONFIRM


def test_nothing_is_taken_after_the_end() -> None:
    """What comes after authentication belongs to the session; giving it here is a bug."""
    ann, bob = dialler(), listener()
    run(ann, bob)
    for machine in (ann, bob):
        with pytest.raises(LocalProtocolError):
            machine.receive_data(b"x", 1.0)


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"),
    [((1,), (1,), 1), ((1, 2, 3), (1, 2), 2), ((3, 1), (1, 3), 3), ((7,), (6, 7, 8), 7)],
)
def test_the_highest_common_version_is_chosen(offered, spoken, chosen) -> None:
    """Both ends speak the highest version both know."""
    ann, bob = dialler(versions=offered), listener(versions=spoken)
    run(ann, bob)
    assert ann.events() == [Authenticated(BOB.device, chosen)]
    assert bob.events() == [Authenticated(ANN.device, chosen)]


def test_without_a_common_version_the_listener_says_nothing() -> None:
    """It fails with a reason for the log."""
    ann, bob = dialler(versions=(2,)), listener(versions=(1,))
    deliver(ann, bob)
    assert "no version in common" in failure(bob)


def test_t09_versions_cannot_be_taken_away() -> None:
    """A man in the middle who removes the higher version is not recognised any more."""
    ann, bob = dialler(versions=(1, 2)), listener(versions=(1, 2))
    (opening,) = ann.data_to_send()
    fewer = opening[:1] + b"\x01" + opening[2:4] + opening[6:]
    bob.receive_data(fewer, 0.0)
    assert "nobody we know" in failure(bob)


def test_t09_the_listener_cannot_choose_what_was_not_offered() -> None:
    """A version changed on the way back is refused before the signature is looked at."""
    ann, bob = dialler(versions=(1,)), listener(versions=(1,))
    deliver(ann, bob)
    (answer,) = bob.data_to_send()
    ann.receive_data(answer[:1] + b"\x00\x02" + answer[3:], 0.0)
    assert "not offered" in failure(ann)


def test_t09_another_offered_version_than_the_one_chosen_does_not_verify() -> None:
    """The choice is under the signature, even among versions that were offered."""
    ann, bob = dialler(versions=(1, 2)), listener(versions=(1, 2))
    deliver(ann, bob)
    (answer,) = bob.data_to_send()
    ann.receive_data(answer[:1] + b"\x00\x01" + answer[3:], 0.0)
    assert "did not prove" in failure(ann)


def test_t03_a_man_in_the_middle_has_another_binding() -> None:
    """Relaying every byte between two channels authenticates neither end."""
    ann, bob = dialler(binding=BINDING), listener(binding=OTHER_BINDING)
    deliver(ann, bob)
    assert "nobody we know" in failure(bob)


def test_t04_an_answer_from_another_channel_does_not_verify() -> None:
    """Even somebody who got a true answer on another channel cannot use it here."""
    ann, elsewhere, bob = dialler(BINDING), dialler(OTHER_BINDING), listener(OTHER_BINDING)
    deliver(elsewhere, bob)
    ann.data_to_send()
    deliver(bob, ann)
    assert "did not prove" in failure(ann)


def test_t05_a_replayed_conversation_fails() -> None:
    """Messages of an earlier conversation mean nothing to fresh nonces."""
    ann, bob = dialler(), listener()
    (opening,), (answer,), (confirm,) = run(ann, bob)
    again = listener(nonce=b"m" * 32)
    again.receive_data(opening, 0.0)
    again.data_to_send()
    again.receive_data(confirm, 0.0)
    assert "did not prove" in failure(again)
    once_more = dialler(nonce=b"e" * 32)
    once_more.data_to_send()
    once_more.receive_data(answer, 0.0)
    assert "did not prove" in failure(once_more)


def test_t05_a_reflected_message_fails() -> None:
    """A device cannot be made to talk to itself: both directions differ."""
    ann = dialler()
    (opening,) = ann.data_to_send()
    ann.receive_data(opening, 0.0)
    assert "not an answer" in failure(ann)
    mirror = AuthListener(ANN, [known(ANN, BOB)], BINDING, b"l" * 32, now=0.0)
    mirror.receive_data(opening, 0.0)
    assert "nobody we know" in failure(mirror)


def test_t08_a_peer_cannot_pass_for_another_peer() -> None:
    """Eve, a peer of both, cannot relay Ann's opening as her own or answer as Bob."""
    ann = dialler()
    (opening,) = ann.data_to_send()
    eve = AuthListener(EVE, [known(EVE, ANN)], BINDING, b"l" * 32, now=0.0)
    eve.receive_data(opening, 0.0)
    assert "nobody we know" in failure(eve)
    own = AuthDialler(EVE, known(EVE, BOB), BINDING, b"d" * 32, now=0.0)
    bob = listener()
    deliver(own, bob)
    deliver(bob, own)
    deliver(own, bob)
    assert bob.events() == [Authenticated(EVE.device, 1)]


def test_a_stolen_pair_key_alone_proves_nothing() -> None:
    """Whoever has the pair key, but not the signing key, is recognised and still refused."""

    class Thief:
        device = ANN.device
        key = ANN.key
        sign = staticmethod(EVE.sign)
        unseal = staticmethod(EVE.unseal)

    thief = AuthDialler(Thief(), known(ANN, BOB), BINDING, b"d" * 32, now=0.0)
    bob = listener()
    deliver(thief, bob)
    deliver(bob, thief)
    deliver(thief, bob)
    assert "did not prove" in failure(bob)


def test_t13_a_stranger_gets_no_answer() -> None:
    """Whoever is no peer learns nothing, not even that this is a p2psync device."""
    stranger = AuthDialler(EVE, known(EVE, BOB), BINDING, b"d" * 32, now=0.0)
    bob = AuthListener(BOB, [known(BOB, ANN)], BINDING, b"l" * 32, now=0.0)
    deliver(stranger, bob)
    assert "nobody we know" in failure(bob)
    alone = AuthListener(BOB, [], BINDING, b"l" * 32, now=0.0)
    deliver(dialler(), alone)
    assert "nobody we know" in failure(alone)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_t32_no_spoiled_message_authenticates(which: int) -> None:
    """Any byte changed, missing or added in any message: the receiving end fails."""
    original = run(dialler(), listener())[which][0]
    for message in spoiled(original):
        ann, bob = dialler(), listener()
        steps = [(ann, bob), (bob, ann), (ann, bob)]
        for sender, receiver in steps[:which]:
            deliver(sender, receiver)
        sender, receiver = steps[which]
        sender.data_to_send()
        receiver.receive_data(message, 0.0)
        failure(receiver)


@given(st.binary(max_size=300))
def test_t32_random_bytes_only_fail(data: bytes) -> None:
    """Nothing a stranger sends raises anything."""
    bob = listener()
    bob.receive_data(data, 0.0)
    failure(bob)


def test_a_message_split_or_joined_on_the_way_fails() -> None:
    """Channels carry whole messages; half of one, or two in one, is refused."""
    ann, bob = dialler(), listener()
    (opening,) = ann.data_to_send()
    bob.receive_data(opening + opening, 0.0)
    failure(bob)


def test_a_duplicated_opening_fails() -> None:
    """The second copy is not the confirmation that is awaited."""
    bob = listener()
    (opening,) = dialler().data_to_send()
    bob.receive_data(opening, 0.0)
    bob.data_to_send()
    bob.receive_data(opening, 0.0)
    assert "not the confirmation" in failure(bob)


def test_t10_authentication_has_ten_seconds() -> None:
    """At the deadline the machine fails, by the clock or by a message that comes too late."""
    ann, bob = dialler(), listener()
    assert ann.next_deadline() == limits.AUTH_TIMEOUT_S
    ann.handle_deadline(limits.AUTH_TIMEOUT_S - 0.1)
    assert ann.events() == []
    ann.handle_deadline(limits.AUTH_TIMEOUT_S)
    assert "too long" in failure(ann)
    ann.handle_deadline(limits.AUTH_TIMEOUT_S + 1)
    assert ann.events() == []
    late = dialler().data_to_send()[0]
    bob.receive_data(late, limits.AUTH_TIMEOUT_S)
    assert "too long" in failure(bob)


@pytest.mark.parametrize("versions", [(), tuple(range(1, 10))])
def test_versions_offered_are_few(versions: tuple[int, ...]) -> None:
    """Offering none or more than eight is a bug."""
    with pytest.raises(LocalProtocolError):
        dialler(versions=versions)


def test_a_binding_and_a_nonce_have_32_bytes() -> None:
    """Anything else is a bug of the caller."""
    with pytest.raises(LocalProtocolError):
        dialler(binding=b"short")
    with pytest.raises(LocalProtocolError):
        listener(nonce=b"short")


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("given_input", Input)
def test_every_state_takes_exactly_the_inputs_of_the_table(state, given_input) -> None:
    """What the table lacks raises and leaves the state as it was."""
    steps = Steps(TRANSITIONS, state)
    if (state, given_input) in TRANSITIONS:
        steps.take(given_input)
        assert steps.state is TRANSITIONS[state, given_input]
    else:
        with pytest.raises(RemoteProtocolError):
            steps.take(given_input)
        assert steps.state is state
