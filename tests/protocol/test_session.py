"""Sessions: greeting, messages, signs of life and the end, joined in memory."""

from __future__ import annotations

import pytest

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.codec import decode, encode
from p2psync.protocol.machine import Failed, Steps
from p2psync.protocol.messages import Detach, Goodbye, Hello, Message, Ping, Pong
from p2psync.protocol.session import (
    TRANSITIONS,
    Answered,
    Closed,
    Input,
    Opened,
    Received,
    Session,
    State,
)
from tests.support.protocol import deliver

ANN = Hello("ann", b"a" * 16, "p2psync")
BOB = Hello("bob", b"b" * 16, "p2psync")
WORD = Detach(bytes(16))


def greeted(now: float = 0.0) -> tuple[Session, Session]:
    """Return two sessions that have exchanged their greetings and first pings."""
    ann, bob = Session(ANN, now=now), Session(BOB, now=now)
    for _ in range(3):
        deliver(ann, bob, now)
        deliver(bob, ann, now)
    ann.events()
    bob.events()
    return ann, bob


def opened() -> Session:
    """Return a session whose peer has greeted and answered the first ping."""
    ann, _ = greeted()
    return ann


def sent(session: Session) -> list[Message]:
    return [decode(data) for data in session.data_to_send()]


def test_hello_is_first_in_each_direction() -> None:
    """Each side greets at once, and is open when the other's greeting has come."""
    ann, bob = Session(ANN, now=0.0), Session(BOB, now=0.0)
    assert ann.state is State.GREETING
    deliver(ann, bob)
    assert bob.events() == [Opened(ANN)]
    assert ann.events() == []
    deliver(bob, ann)
    assert ann.events() == [Opened(BOB)]
    assert ann.state is State.OPEN


def test_nothing_is_sent_before_the_peer_greeted() -> None:
    """A listener that still takes short messages only never meets a long one."""
    ann = Session(ANN, now=0.0)
    with pytest.raises(LocalProtocolError):
        ann.send(WORD)
    with pytest.raises(LocalProtocolError):
        ann.ping(0.0)
    ann.handle_deadline(limits.PING_AFTER_S)
    assert sent(ann) == [ANN]


def test_messages_go_to_the_owner_in_order() -> None:
    """What one side sends is received once, in order, by the other."""
    ann, bob = greeted()
    other = Detach(b"o" * 16)
    ann.send(WORD)
    ann.send(other)
    deliver(ann, bob)
    assert bob.events() == [Received(WORD), Received(other)]


@pytest.mark.parametrize("message", [ANN, Ping(1), Pong(1), Goodbye("x")])
def test_the_machine_sends_its_own_messages_itself(message: Message) -> None:
    """An owner that sends one of those has a bug."""
    with pytest.raises(LocalProtocolError):
        opened().send(message)


def test_a_second_hello_fails() -> None:
    """Nobody changes who he is within a session."""
    ann = opened()
    ann.receive_data(encode(BOB), 0.0)
    assert ann.events() == [Failed("hello has no place while open")]
    assert ann.next_deadline() is None


@pytest.mark.parametrize("message", [Ping(1), Pong(1), WORD])
def test_t32_anything_before_hello_fails(message: Message) -> None:
    """The first message is a greeting or the session is over."""
    ann = Session(ANN, now=0.0)
    ann.receive_data(encode(message), 0.0)
    (event,) = ann.events()
    assert isinstance(event, Failed)
    assert ann.data_to_send() == []


@pytest.mark.parametrize("data", [b"", b"\xc1", bytes(limits.CONTROL_FRAME + 1)])
def test_t21_what_is_no_message_fails_the_session(data: bytes) -> None:
    """Garbage and oversized messages end the session with a reason, and nothing follows."""
    ann = opened()
    ann.receive_data(data, 0.0)
    (event,) = ann.events()
    assert isinstance(event, Failed)
    ann.receive_data(encode(WORD), 0.0)
    ann.handle_deadline(1e9)
    assert ann.events() == []
    ann.send(WORD)
    assert ann.data_to_send() == []


def test_goodbye_ends_both_sides_on_purpose() -> None:
    """What was queued before is still delivered; both sides say why they closed."""
    ann, bob = greeted()
    ann.send(WORD)
    ann.close("stopping")
    assert ann.events() == [Closed("stopping")]
    deliver(ann, bob)
    assert bob.events() == [Received(WORD), Closed("stopping")]
    assert bob.state is State.OVER
    ann.close("again")
    assert ann.events() == []


def test_goodbye_instead_of_a_greeting_is_in_order() -> None:
    """A peer may say at once why it will not talk."""
    ann, bob = Session(ANN, now=0.0), Session(BOB, now=0.0)
    ann.data_to_send()
    ann.close("busy" * 100)
    deliver(ann, bob)
    (event,) = bob.events()
    assert event == Closed(("busy" * 100)[: limits.REASON_TEXT])


def test_the_round_trip_is_measured_from_the_start() -> None:
    """A ping follows the greeting; its answer gives the round trip in seconds."""
    ann, bob = Session(ANN, now=0.0), Session(BOB, now=0.0)
    deliver(bob, ann)
    assert ann.rtt is None
    deliver(ann, bob, 0.1)
    deliver(bob, ann, 0.25)
    assert ann.rtt == 0.25


def test_silence_is_answered_with_a_ping() -> None:
    """After 10 s without a word from the peer, a ping; its answer keeps the session."""
    ann, bob = greeted()
    assert ann.next_deadline() == 10.0
    ann.handle_deadline(9.9)
    assert ann.data_to_send() == []
    ann.handle_deadline(10.0)
    deliver(ann, bob, 10.0)
    deliver(bob, ann, 10.5)
    assert ann.rtt == 0.5
    assert ann.events() == []
    assert ann.next_deadline() == 20.5


def test_a_peer_that_stays_silent_is_dead_after_25_seconds() -> None:
    """Two pings without an answer, then the end."""
    ann = opened()
    times = []
    while (due := ann.next_deadline()) is not None:
        times.append(due)
        ann.handle_deadline(due)
        ann.data_to_send()
    assert times == [10.0, 20.0, 25.0]
    assert ann.events() == [Failed("the peer is silent")]


def test_a_peer_that_never_greets_is_dead_after_25_seconds() -> None:
    """Without a greeting there is nothing to ping."""
    ann = Session(ANN, now=0.0)
    ann.data_to_send()
    assert ann.next_deadline() == 25.0
    ann.handle_deadline(25.0)
    assert ann.events() == [Failed("the peer is silent")]


def test_t25_a_peer_that_takes_nothing_is_dead_after_25_seconds() -> None:
    """Talking does not help a peer that lets us wait to send."""
    ann = opened()
    ann.handle_deadline(5.0)
    ann.send(WORD)
    for second in range(6, 30):
        ann.receive_data(encode(WORD), float(second))
    assert ann.next_deadline() == 30.0
    ann.handle_deadline(30.0)
    assert ann.events()[-1] == Failed("the peer takes nothing")


def test_taking_what_is_to_be_sent_restarts_that_clock() -> None:
    """A driver that could send is not stuck."""
    ann = opened()
    ann.handle_deadline(5.0)
    ann.send(WORD)
    assert sent(ann) == [WORD]
    ann.receive_data(encode(WORD), 29.0)
    ann.handle_deadline(30.0)
    assert ann.events() == [Received(WORD)]


def test_parts_of_a_message_are_signs_of_life() -> None:
    """A message that takes a minute to arrive is no silence, and the peer hears of us."""
    ann, bob = greeted()
    for second in range(10, 60, 10):
        ann.handle_deadline(float(second))
        ann.note_received(float(second))
        deliver(ann, bob, float(second))
        bob.data_to_send()  # its answers wait behind the message
    assert ann.state is State.OPEN
    assert bob.next_deadline() == 60.0
    ann.handle_deadline(75.0)
    assert ann.events() == [Failed("the peer is silent")]


def test_parts_that_leave_show_that_the_peer_takes_them() -> None:
    """While a long message goes out, what waits behind it is not stuck."""
    ann = opened()
    ann.note_sent(1.0)
    ann.send(WORD)
    for second in range(2, 40):
        ann.receive_data(encode(WORD), float(second))
        ann.note_sent(float(second))
        ann.handle_deadline(float(second))
    assert ann.state is State.OPEN
    ann.receive_data(encode(WORD), 60.0)
    ann.handle_deadline(64.0)
    assert ann.events()[-1] == Failed("the peer takes nothing")


def test_t24_a_flood_of_pings_is_answered_once_per_sending() -> None:
    """Pings cost the peer more than us: the latest is answered, nothing piles up."""
    ann = opened()
    for number in range(1000):
        ann.receive_data(encode(Ping(number)), 1.0)
    assert sent(ann) == [Pong(999)]


def test_the_owner_can_ask_for_a_sign_of_life() -> None:
    """`Answered` follows each ping asked for, also those overtaken by a later one."""
    ann, bob = greeted()
    first = ann.ping(1.0)
    second = ann.ping(2.0)
    deliver(ann, bob, 2.0)
    deliver(bob, ann, 3.0)
    assert ann.events() == [Answered(first, 2.0), Answered(second, 1.0)]


def test_pings_under_way_are_bounded() -> None:
    """Asking for a 33rd without an answer to any is refused."""
    ann = opened()
    for _ in range(32):
        ann.ping(1.0)
    with pytest.raises(LocalProtocolError):
        ann.ping(1.0)


@pytest.mark.parametrize("number", [0, 2, 99])
def test_t32_an_answer_to_no_ping_fails(number: int) -> None:
    """Inventing or repeating a Pong is against the rules."""
    ann = opened()  # ping 1 is answered
    ann.receive_data(encode(Pong(number)), 0.0)
    assert ann.events() == [Failed("a pong without a ping")]


def test_a_peer_that_talks_but_answers_no_ping_fails_in_the_end() -> None:
    """Unanswered pings do not pile up for ever."""
    ann = opened()
    now = 0.0
    while ann.state is State.OPEN:
        now += limits.PING_AFTER_S
        ann.handle_deadline(now)
        ann.data_to_send()
        ann.receive_data(encode(WORD), now + 0.1)
        now += 0.1
        assert now < 500.0
    assert ann.events()[-1] == Failed("the peer answers no ping")


def test_t05_a_replayed_stream_fails() -> None:
    """The greeting comes once: a second copy of a whole session is refused at its start."""
    ann, bob = Session(ANN, now=0.0), Session(BOB, now=0.0)
    (greeting,) = ann.data_to_send()
    bob.receive_data(greeting, 0.0)
    bob.receive_data(greeting, 0.0)
    assert bob.events() == [Opened(ANN), Failed("hello has no place while open")]


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
