"""Pairing: whoever knows the code becomes a peer; nobody else learns or changes anything."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2psync.core.ids import FolderId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits, members, words
from p2psync.protocol.machine import Failed, Steps
from p2psync.protocol.pairing import (
    TRANSITIONS,
    Declined,
    Guess,
    Input,
    Joining,
    Offer,
    PairingAccepter,
    PairingSharer,
    Refusal,
    Refused,
    State,
    Verified,
    Welcome,
    WrongCode,
    slot_of,
)
from p2psync.protocol.pake import Exchange, Keys, transcript_of
from p2psync.protocol.words import Code
from tests.support.protocol import deliver, device, spoiled

ANN, BOB = device("ann"), device("bob")
CODE = words.make_code([1, 2, 3, 4])
OTHER = words.make_code([1, 2, 3, 5])
FOLDER = FolderId(b"f" * 16)
ROWS = [members.found(BOB, FOLDER, "bob")]
ROWS.append(members.invite(BOB, FOLDER, ROWS, BOB.device, ANN.device, ANN.key, "ann"))
WELCOME = Welcome(
    bytes(BOB.device),
    BOB.key,
    "bob",
    b"b" * 16,
    bytes(FOLDER),
    "photos",
    "rw",
    12,
    3456,
    True,
    bytes(BOB.device),
    ROWS,
)
JOINING = Joining(bytes(ANN.device), ANN.key, "ann", b"a" * 16)


def accepter(code: Code = CODE, seed: bytes = b"1" * 32, **kwargs: Any) -> PairingAccepter:
    return PairingAccepter(ANN, code, "ann", b"a" * 16, seed, deadline=30.0, **kwargs)


def sharer(code: Code = CODE, seed: bytes = b"2" * 32, **kwargs: Any) -> PairingSharer:
    return PairingSharer(BOB, code, seed, deadline=600.0, **kwargs)


def to_the_guess(ann: PairingAccepter, bob: PairingSharer) -> list[bytes]:
    """Deliver messages 1 to 3; return them."""
    return deliver(ann, bob) + deliver(bob, ann) + deliver(ann, bob)


def to_the_end(ann: PairingAccepter, bob: PairingSharer) -> list[bytes]:
    """Deliver all four messages, the owner playing along; return them."""
    messages = to_the_guess(ann, bob)
    bob.verify_guess()
    bob.accept(WELCOME)
    return messages + deliver(bob, ann)


def test_the_right_code_makes_both_sides_known_to_each_other() -> None:
    """Each side learns the other's keys and name, and the accepting side what is shared."""
    ann, bob = accepter(), sharer()
    to_the_end(ann, bob)
    assert bob.events() == [Guess(), Verified(JOINING)]
    assert ann.events() == [Offer(WELCOME)]
    assert ann.state is State.DONE
    assert bob.state is State.DONE


def test_messages_are_small_enough_for_any_mailbox() -> None:
    """Messages 1 and 2 have at most 128 bytes, 3 at most 1 KiB, 4 at most 64 KiB."""
    start, answer, join, welcome = to_the_end(accepter(), sharer())
    assert len(start) <= limits.PAIRING_HELLO
    assert len(answer) <= limits.PAIRING_HELLO
    assert len(join) <= limits.PAIRING_JOIN
    assert len(welcome) <= 1024 < limits.PAIRING_WELCOME


def test_the_largest_joining_fits() -> None:
    """A name of 100 characters of four bytes each still makes a message 3."""
    ann = PairingAccepter(ANN, CODE, "\U0001f600" * 100, b"a" * 16, b"1" * 32, deadline=30.0)
    bob = sharer()
    to_the_guess(ann, bob)
    bob.verify_guess()
    assert isinstance(bob.events()[-1], Verified)


def test_a_welcome_that_is_too_large_is_a_bug() -> None:
    """The owner gives `members.chain`, not thousands of rows."""
    ann, bob = accepter(), sharer()
    to_the_guess(ann, bob)
    bob.verify_guess()
    with pytest.raises(LocalProtocolError):
        bob.accept(msgspec.structs.replace(WELCOME, members=ROWS * 300))


def test_t06_a_guess_is_announced_before_it_is_compared() -> None:
    """The owner counts durably between `Guess` and `verify_guess`: nothing leaks before."""
    ann, bob = accepter(OTHER), sharer()
    to_the_guess(ann, bob)
    assert bob.events() == [Guess()]
    assert bob.data_to_send() == []
    assert bob.state is State.GUESSED


def test_t06_a_wrong_code_is_told_to_both_sides() -> None:
    """The sharing side says so at once, and its machine compares nothing ever again."""
    ann, bob = accepter(OTHER), sharer()
    messages = to_the_guess(ann, bob)
    bob.verify_guess()
    assert bob.events() == [Guess(), WrongCode()]
    deliver(bob, ann)
    assert ann.events() == [WrongCode()]
    assert bob.state is State.OVER
    for message in messages:
        bob.receive_data(message, 1.0)
    assert bob.events() == []
    with pytest.raises(LocalProtocolError):
        bob.verify_guess()


@pytest.mark.parametrize("before", [0, 1, 2])
def test_t06_only_a_guess_can_be_compared_and_only_once(before: int) -> None:
    """Without a message 3 there is nothing to compare; after it, once."""
    ann, bob = accepter(), sharer()
    if before:
        to_the_guess(ann, bob)
    if before == 2:
        bob.verify_guess()
    if before != 1:
        with pytest.raises(LocalProtocolError):
            bob.verify_guess()


def test_t06_a_second_guess_in_one_conversation_is_not_looked_at() -> None:
    """Another message 3 while the owner counts changes nothing and is no event."""
    ann, bob = accepter(OTHER), sharer()
    to_the_guess(ann, bob)
    right = accepter()
    right.data_to_send()
    bob.receive_data(b"\x03" + bytes(200), 1.0)
    bob.verify_guess()
    assert bob.events() == [Guess(), WrongCode()]


def test_nobody_is_accepted_before_the_guess_was_right() -> None:
    """Calling `accept` early is a bug."""
    ann, bob = accepter(), sharer()
    to_the_guess(ann, bob)
    with pytest.raises(LocalProtocolError):
        bob.accept(WELCOME)


def test_t07_the_code_leaves_no_trace_in_what_is_said_openly() -> None:
    """Two codes with one slot and the same seeds: only X, Y and what is sealed differ.

    Nothing is a function of the code alone, so nothing can be looked up in a table.
    """
    first = to_the_end(accepter(CODE), sharer(CODE))
    second = to_the_end(accepter(OTHER), sharer(OTHER))
    assert first[0][:6] == second[0][:6]
    fresh = to_the_end(accepter(CODE, seed=b"3" * 32), sharer(CODE, seed=b"4" * 32))
    assert all(a[7:] != b[7:] for a, b in zip(first, fresh, strict=True))
    secret_word = str(CODE).split("-")[1].encode()
    assert all(secret_word not in message for message in first)


def test_t07_no_name_key_or_folder_is_readable() -> None:
    """A listener on the network reads nothing about people."""
    seen = b"".join(to_the_end(accepter(), sharer()))
    for secret in (b"ann", b"bob", b"photos", bytes(ANN.device), ANN.key, bytes(FOLDER)):
        assert secret not in seen


def test_t05_a_replayed_guess_is_wrong_in_another_conversation() -> None:
    """The whole of an earlier, successful pairing, replayed: one wrong guess, no more."""
    start, _, join, _ = to_the_end(accepter(), sharer())
    again = sharer(seed=b"9" * 32)
    again.receive_data(start, 0.0)
    again.data_to_send()
    again.receive_data(join, 0.0)
    again.verify_guess()
    assert again.events() == [Guess(), WrongCode()]


def test_t05_reflected_messages_are_refused() -> None:
    """Neither side takes its own messages for the other's."""
    ann, bob = accepter(), sharer()
    (start,) = ann.data_to_send()
    ann.receive_data(start, 0.0)
    assert isinstance(ann.events()[0], Failed)
    bob.receive_data(start, 0.0)
    (answer,) = bob.data_to_send()
    bob.receive_data(answer, 0.0)
    assert isinstance(bob.events()[0], Failed)


def test_t08_a_relay_in_the_middle_without_the_code_gets_nothing() -> None:
    """Playing each side to the other costs one guess, and both sides notice."""
    ann, bob = accepter(), sharer()
    eve_to_ann, eve_to_bob = sharer(OTHER, seed=b"5" * 32), accepter(OTHER, seed=b"6" * 32)
    to_the_guess(ann, eve_to_ann)
    eve_to_ann.verify_guess()
    assert eve_to_ann.events() == [Guess(), WrongCode()]
    to_the_guess(eve_to_bob, bob)
    bob.verify_guess()
    assert bob.events() == [Guess(), WrongCode()]


@pytest.mark.parametrize(
    ("offered", "spoken", "chosen"), [((1,), (1,), 1), ((1, 2), (2, 1), 2), ((1, 2), (1,), 1)]
)
def test_the_highest_common_version_is_chosen(offered, spoken, chosen) -> None:
    """It is in message 2 and in the transcript."""
    ann, bob = accepter(versions=offered), sharer(versions=spoken)
    messages = to_the_end(ann, bob)
    assert int.from_bytes(messages[1][1:3], "big") == chosen
    assert ann.events() == [Offer(WELCOME)]


def test_t09_versions_cannot_be_taken_away() -> None:
    """Fewer versions offered on the way: the keys differ, the guess is wrong."""
    ann, bob = accepter(versions=(1, 2)), sharer(versions=(1, 2))
    (start,) = ann.data_to_send()
    fewer = start[:1] + b"\x01" + start[2:4] + start[6:]
    bob.receive_data(fewer, 0.0)
    deliver(bob, ann)
    deliver(ann, bob)
    bob.verify_guess()
    assert bob.events() == [Guess(), WrongCode()]


def test_t09_another_version_chosen_on_the_way_is_noticed() -> None:
    """Not offered: refused. Offered: the keys differ."""
    for version, noticed in ((3, Failed), (1, WrongCode)):
        ann, bob = accepter(versions=(1, 2)), sharer(versions=(1, 2))
        deliver(ann, bob)
        (answer,) = bob.data_to_send()
        ann.receive_data(answer[:1] + version.to_bytes(2, "big") + answer[3:], 0.0)
        if noticed is WrongCode:
            deliver(ann, bob)
            bob.verify_guess()
            assert bob.events()[-1] == WrongCode()
        else:
            assert isinstance(ann.events()[0], Failed)


def test_without_a_common_version_both_sides_say_so() -> None:
    """The sharing side answers with a refusal that names the reason."""
    ann, bob = accepter(versions=(9,)), sharer()
    deliver(ann, bob)
    deliver(bob, ann)
    assert ann.events() == [Refused(Refusal.VERSION)]
    assert "no version in common" in bob.events()[0].reason


def test_a_conversation_about_another_slot_is_refused() -> None:
    """The slot in message 1 must be the code's; it costs no guess."""
    bob = sharer(words.make_code([9, 2, 3, 4]))
    deliver(accepter(), bob)
    assert bob.events() == [Failed("pairing for another slot")]


def test_the_slot_of_a_message_1_can_be_read() -> None:
    """An owner with several codes finds the right one by it."""
    (start,) = accepter().data_to_send()
    assert slot_of(start) == CODE.slot
    with pytest.raises(RemoteProtocolError):
        slot_of(start[:4] + b"\xff\xff" + start[6:])
    with pytest.raises(RemoteProtocolError):
        slot_of(b"")


@pytest.mark.slow
@pytest.mark.parametrize(("which", "each"), [(0, 7), (1, 7), (2, 11), (3, 41)])
def test_t32_no_spoiled_message_pairs(which: int, each: int) -> None:
    """Some spoiled forms of each message (a run costs milliseconds): no pairing."""
    original = to_the_end(accepter(), sharer())[which]
    for message in list(spoiled(original))[::each]:
        ann, bob = accepter(), sharer()
        ends = [(ann, bob), (bob, ann), (ann, bob), (bob, ann)]
        for step, (sender, receiver) in enumerate(ends):
            if bob.state is State.GUESSED:
                bob.verify_guess()
            if bob.state is State.VERIFIED:
                bob.accept(WELCOME)
            wanted = sender.data_to_send()
            if step == which:
                wanted = [message]
            for data in wanted:
                receiver.receive_data(data, 0.0)
        assert not any(isinstance(event, Offer) for event in ann.events())
        paired = any(isinstance(event, Verified) for event in bob.events())
        assert not paired or which == 3


@settings(max_examples=50)
@given(st.binary(max_size=200), st.sampled_from(State))
def test_t32_random_bytes_only_fail(data: bytes, stage: State) -> None:
    """In no state do a stranger's bytes raise anything or pair anybody."""
    ann, bob = accepter(), sharer()
    if stage in (State.AWAIT_JOIN, State.GUESSED, State.AWAIT_WELCOME):
        deliver(ann, bob)
        deliver(bob, ann)
    bob.receive_data(data, 0.0)
    ann.receive_data(data, 0.0)
    for event in ann.events() + bob.events():
        assert not isinstance(event, Offer | Verified)


@pytest.mark.parametrize(
    "point",
    [
        pytest.param(b"A" + bytes(32), id="zero"),
        pytest.param(b"A\x01" + bytes(31), id="the neutral element"),
        pytest.param(b"A" + b"\xff" * 32, id="no field element"),
        pytest.param(b"B" + b"x" * 32, id="the other side's mark"),
        pytest.param(b"A" + b"x" * 32, id="no point"),
    ],
)
def test_an_impossible_point_is_a_wrong_guess(point: bytes) -> None:
    """An X that no honest side sends is counted, and answered, like any wrong guess."""
    bob = sharer()
    (start,) = accepter().data_to_send()
    bob.receive_data(start[:-33] + point, 0.0)
    bob.data_to_send()
    bob.receive_data(b"\x03" + bytes(200), 0.0)
    bob.verify_guess()
    assert bob.events() == [Guess(), WrongCode()]


def test_an_impossible_point_in_the_answer_fails() -> None:
    """The accepting side refuses such a Y before it says anything else."""
    ann = accepter()
    ann.data_to_send()
    ann.receive_data(b"\x02\x00\x01B" + bytes(32), 0.0)
    assert isinstance(ann.events()[0], Failed)
    assert ann.data_to_send() == []


def _forged(payload: Any, signer: Any = ANN, use: bytes = b"pairing join") -> PairingSharer:
    """Return a sharer that got a message 3 from somebody who knows the code and cheats."""
    bob = sharer()
    exchange = Exchange(CODE.password, b"7" * 32, sharing=False)
    start = b"\x01\x01\x00\x01" + (1).to_bytes(2, "big") + exchange.start()
    bob.receive_data(start, 0.0)
    (answer,) = bob.data_to_send()
    transcript = transcript_of(start, answer)
    keys = Keys(exchange.finish(answer[3:]), transcript)
    packed = msgspec.msgpack.encode(payload)
    signed = signer.sign(use, transcript, packed) + packed
    bob.receive_data(b"\x03" + keys.confirmation() + keys.seal(b"join", signed), 0.0)
    bob.verify_guess()
    return bob


def test_knowing_the_code_is_enough_to_get_this_far() -> None:
    """The forgery below is a true conversation when nothing is forged."""
    assert _forged(JOINING).events() == [Guess(), Verified(JOINING)]


@pytest.mark.parametrize(
    ("payload", "signer", "use"),
    [
        pytest.param(JOINING, BOB, b"pairing join", id="signed by another key"),
        pytest.param(JOINING, ANN, b"pairing welcome", id="signed for another use"),
        pytest.param([1, 2], ANN, b"pairing join", id="not a payload"),
        pytest.param([bytes(31), ANN.key, "ann", bytes(16)], ANN, b"pairing join", id="id"),
    ],
)
def test_t08_whoever_knows_the_code_still_proves_who_he_is(payload, signer, use) -> None:
    """The keys in the payload must have signed this very conversation."""
    guess, failed = _forged(payload, signer, use).events()
    assert guess == Guess()
    assert isinstance(failed, Failed)


def test_a_right_mac_with_a_broken_seal_fails() -> None:
    """It is no wrong code, and no pairing either."""
    ann, bob = accepter(), sharer()
    deliver(ann, bob)
    deliver(bob, ann)
    (join,) = ann.data_to_send()
    bob.receive_data(join[:-1] + bytes([join[-1] ^ 1]), 0.0)
    bob.verify_guess()
    assert bob.events() == [Guess(), Failed("a message 3 that does not open")]


def test_a_welcome_of_the_wrong_device_fails() -> None:
    """The sharing side's payload must be signed by the key it names."""
    ann, bob = accepter(), sharer()
    to_the_guess(ann, bob)
    bob.verify_guess()
    bob.accept(msgspec.structs.replace(WELCOME, device=bytes(ANN.device)))
    deliver(bob, ann)
    assert isinstance(ann.events()[0], Failed)


def test_repeated_messages_get_identical_answers() -> None:
    """Over a lossy mailbox everything may arrive several times, also long after."""
    ann, bob = accepter(), sharer()
    start, answer, join, welcome = to_the_end(ann, bob)
    for _ in range(2):
        bob.receive_data(start, 500.0)
        assert bob.data_to_send() == [answer]
        bob.receive_data(join, 500.0)
        assert bob.data_to_send() == [welcome]
    ann.receive_data(welcome, 1.0)
    ann.receive_data(answer, 1.0)
    assert ann.data_to_send() == []
    assert ann.events() == [Offer(WELCOME)]


def test_a_repeated_answer_gets_the_identical_joining() -> None:
    """While it waits for message 4 the accepting side repeats message 3 when asked to."""
    ann, bob = accepter(), sharer()
    deliver(ann, bob)
    (answer,) = bob.data_to_send()
    ann.receive_data(answer, 0.0)
    ann.receive_data(answer, 0.0)
    first, second = ann.data_to_send()
    assert first == second


def test_repetitions_while_the_owner_works_are_no_news() -> None:
    """The same message 3 twice is one guess; while the peer is stored it is just waited for."""
    ann, bob = accepter(), sharer()
    join = to_the_guess(ann, bob)[2]
    bob.receive_data(join, 0.0)
    bob.verify_guess()
    bob.receive_data(join, 0.0)
    assert bob.events() == [Guess(), Verified(JOINING)]
    assert bob.data_to_send() == []


def test_the_accepting_side_goes_on_over_another_carrier() -> None:
    """When the connection broke after message 3, the same machines meet again."""
    ann, bob = accepter(), sharer()
    to_the_guess(ann, bob)
    bob.verify_guess()
    bob.accept(WELCOME)
    bob.data_to_send()  # lost with the connection
    ann.repeat()
    for _ in range(2):
        deliver(ann, bob)
        deliver(bob, ann)
    assert ann.events() == [Offer(WELCOME)]
    ann.repeat()
    assert ann.data_to_send() == []


@pytest.mark.parametrize("refusal", Refusal)
def test_a_refusal_ends_the_waiting(refusal: Refusal) -> None:
    """The accepting side is told at once, with the reason."""
    ann, bob = accepter(), sharer()
    to_the_guess(ann, bob)
    bob.refuse(refusal)
    deliver(bob, ann)
    (event,) = ann.events()
    assert (event == WrongCode()) == (refusal is Refusal.WRONG)
    bob.refuse()
    assert bob.data_to_send() == []


def paired() -> tuple[PairingAccepter, PairingSharer]:
    """Two machines between which everything went well."""
    joining, sharing = accepter(), sharer()
    to_the_guess(joining, sharing)
    sharing.verify_guess()
    sharing.events()
    sharing.accept(WELCOME)
    deliver(sharing, joining)
    joining.events()
    return joining, sharing


def test_declining_undoes_the_pairing() -> None:
    """What a person does not want after the preview is taken back on the sharing side."""
    joining, sharing = paired()
    joining.linger()
    deliver(joining, sharing)
    joining.decline()
    deliver(joining, sharing)

    assert sharing.events() == [Declined()]
    assert sharing.state is joining.state is State.OVER


def test_a_forged_decline_is_nothing() -> None:
    """Only who knows the code's key can decline."""
    _, sharing = paired()
    sharing.receive_data(b"\x06" + b"x" * 16, 1.0)

    assert sharing.events() == []
    assert sharing.state is State.DONE


def test_only_an_offer_can_be_declined() -> None:
    """Before message 4 there is nothing to decline."""
    with pytest.raises(LocalProtocolError):
        accepter().decline()


def test_time_ends_a_conversation() -> None:
    """At its deadline an unfinished machine fails, a finished one ends without a word."""
    ann, bob = accepter(), sharer()
    assert ann.next_deadline() == 30.0
    ann.handle_deadline(29.0)
    assert ann.events() == []
    ann.handle_deadline(30.0)
    assert ann.events() == [Failed("pairing took too long")]
    assert ann.next_deadline() is None
    ann.receive_data(b"\x02", 31.0)
    assert ann.events() == []
    other = accepter()
    to_the_end(other, bob)
    bob.events()
    bob.handle_deadline(600.0)
    assert bob.events() == []
    assert bob.state is State.OVER


@pytest.mark.parametrize("seed", [b"", b"1" * 31])
def test_a_seed_has_32_bytes(seed: bytes) -> None:
    """Anything else is a bug of the caller, not a weak exchange."""
    with pytest.raises(LocalProtocolError):
        accepter(seed=seed)


@pytest.mark.parametrize("versions", [(), tuple(range(9))])
def test_versions_offered_are_few(versions) -> None:
    """Offering none or more than eight is a bug."""
    with pytest.raises(LocalProtocolError):
        accepter(versions=versions)


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
