"""Messages as bytes: golden forms, limits, and whatever a peer may send instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.ids import DeviceId, FolderId
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.codec import decode, encode, plain_bytes
from p2psync.protocol.messages import (
    DATA_MESSAGES,
    MESSAGE_TYPES,
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Chunks,
    Detach,
    Digest,
    Entries,
    Files,
    Goodbye,
    Hello,
    Item,
    Knowledge,
    Manifest,
    Mark,
    MemberRow,
    Members,
    Message,
    Ping,
    Pong,
    Recognised,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "messages.json"
FOLDER = bytes(range(16))
CONTENT = bytes(range(32))
DEVICE = bytes(range(32, 64))
ROW = MemberRow(DEVICE, CONTENT, "näme", "rw", DEVICE, 2, True, bytes(64), 1, (bytes(16),))

EXAMPLES: tuple[Message, ...] = (
    Hello("pi", bytes(16), "p2psync 0.1.0"),
    Ping(7),
    Pong(2**63 - 1),
    Goodbye("stopped"),
    Members(FOLDER, [ROW]),
    Attach(FOLDER, 2**64 - 1, 9, bytes(16), bytes(16)),
    Recognised(FOLDER, True),
    Knowledge(FOLDER, {2**64 - 1: 2**63 - 1}, {}),
    Entries(FOLDER, 1, False, [Item(1, b"a/\xff", msgspec.Raw(b"\x92\x80\x80"))]),
    Mark(FOLDER, 1, 2, True, {5: 6}, {}, {DEVICE: {7: 8}, CONTENT: None}, 3, 4),
    Digest(FOLDER, bytes(16), bytes(16)),
    Detach(FOLDER),
    AskFiles(1, FOLDER, [CONTENT]),
    Files(1, [(CONTENT, b"bytes")], [CONTENT], True),
    AskManifest(2, FOLDER, CONTENT, DEVICE),
    Manifest(2, CONTENT, [5], [(0, 0, 3), (1, 7, 2)]),
    AskChunks(3, FOLDER, CONTENT, [(0, 5, CONTENT)]),
    Chunks(3, [(0, b"bytes")], [5], False),
)
EXAMPLE_OF = {type(example): example for example in EXAMPLES}


def test_every_message_type_has_an_example() -> None:
    """Whoever adds a message adds an example here."""
    assert set(EXAMPLE_OF) == set(MESSAGE_TYPES)


@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
def test_what_is_encoded_is_decoded_again(kind: type[Message]) -> None:
    """Encoding loses nothing."""
    message = EXAMPLE_OF[kind]
    assert decode(encode(message)) == message


@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
def test_the_bytes_of_every_message_are_as_they_were(kind: type[Message]) -> None:
    """The wire form changes only on purpose: then tests/golden/messages.json changes too."""
    golden = json.loads(GOLDEN.read_text())
    assert encode(EXAMPLE_OF[kind]).hex() == golden[kind.__name__]


@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
def test_fields_of_a_newer_version_are_ignored(kind: type[Message]) -> None:
    """A message with more fields than we know is the message without them."""
    message = EXAMPLE_OF[kind]
    plain = msgspec.msgpack.decode(encode(message), strict=False)
    extended = msgspec.msgpack.encode([*plain, {"new": [1]}, None])
    assert decode(extended) == message


@pytest.mark.parametrize(
    "message", [AskManifest(2, FOLDER, CONTENT), Manifest(2, CONTENT, [5])], ids=repr
)
def test_manifests_as_before_there_were_bases(message: Message) -> None:
    """An older peer's shorter forms ask for, and are, whole manifests."""
    golden = json.loads(GOLDEN.read_text())
    assert decode(bytes.fromhex(golden[f"{type(message).__name__}, whole"])) == message


def test_ids_travel_as_the_bytes_they_are() -> None:
    """DeviceIds and FolderIds need no conversion by whoever sends them."""
    message = Mark(FolderId(FOLDER), 1, 2, True, {}, {}, {DeviceId(DEVICE): None}, 0, 0)
    assert decode(encode(message)) == message
    with pytest.raises(NotImplementedError):
        plain_bytes(object())


U = msgspec.msgpack.encode
NESTED = b"\x91" * 5000 + b"\xc0"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(U([99, 1]), id="an unknown message"),
        pytest.param(U([]), id="no number"),
        pytest.param(U({1: 2}), id="a map"),
        pytest.param(U([2]), id="a field missing"),
        pytest.param(U([2, "x"]), id="a field of another type"),
        pytest.param(U([2, -1]), id="a negative count"),
        pytest.param(U([2, 2**63]), id="a count beyond 63 bits"),
        pytest.param(U([2, 1]) + b"x", id="bytes after the message"),
        pytest.param(U([4, "x" * 201]), id="a long reason"),
        pytest.param(b"\x92\x04\xa1\xff", id="text that is no UTF-8"),
        pytest.param(b"\x93\x02\x01" + NESTED, id="nested deeply where we skip"),
        pytest.param(
            b"\x95\x17" + U(FOLDER) + b"\x01\xc2\x91\x93\x01\xc4\x01a" + NESTED, id="raw"
        ),
        pytest.param(U([27, bytes(15)]), id="a folder id too short"),
        pytest.param(U([30, 1, FOLDER, [bytes(31)]]), id="a content too short"),
        pytest.param(U([30, 1, FOLDER, [CONTENT] * 4097]), id="too many contents"),
        pytest.param(U([23, FOLDER, 1, False, [[1, bytes(32769), None]]]), id="a long path"),
        pytest.param(U([33, 1, CONTENT, [1, 2]]), id="fewer hashes than sizes"),
        pytest.param(U([33, 1, CONTENT * 2, [1]]), id="more hashes than sizes"),
        pytest.param(U([33, 1, CONTENT, [limits.DATA_FRAME + 1]]), id="a huge chunk"),
        pytest.param(U([34, 1, FOLDER, CONTENT, [(2**62, 1, CONTENT)]]), id="a huge offset"),
        pytest.param(U([1, "n" * 101, bytes(16), "s"]), id="a long name"),
        pytest.param(b"\x92\x1b\xc6\xff\xff\xff\xff", id="4 GiB announced"),
        pytest.param(
            b"\x94\x1e\x01\xc4\x10" + FOLDER + b"\xdd\xff\xff\xff\xff", id="4 G items"
        ),
    ],
)
def test_t32_what_is_no_message_is_the_peers_fault(data: bytes) -> None:
    """Anything but one whole message within its limits raises RemoteProtocolError."""
    with pytest.raises(RemoteProtocolError):
        decode(data)


@pytest.mark.parametrize("seq", [0, -1, 2**63, 2**64 - 1])
def test_t28_a_seq_outside_63_bits_is_refused(seq: int) -> None:
    """Nobody's counter can be raised to where it would overflow."""
    with pytest.raises(RemoteProtocolError):
        decode(U([22, FOLDER, {5: seq}, {}]))


def test_t21_a_control_message_ends_at_one_mebibyte() -> None:
    """Ours is never sent, theirs is refused before it is decoded; data may have 4 MiB."""
    vector = dict.fromkeys(range(2**40, 2**40 + 70000), 2**62)
    message = Knowledge(FOLDER, vector, {})
    with pytest.raises(LocalProtocolError):
        encode(message)
    with pytest.raises(RemoteProtocolError):
        decode(U(message))
    data = Files(1, [(CONTENT, bytes(2 * limits.MIB))], [], True)
    assert Files in DATA_MESSAGES
    assert decode(encode(data)) == data
    data = Files(1, [(CONTENT, bytes(limits.DATA_FRAME))], [], True)
    with pytest.raises(LocalProtocolError):
        encode(data)
    with pytest.raises(RemoteProtocolError):
        decode(U(data))


def _decode_or_refuse(data: bytes) -> None:
    try:
        message = decode(data)
    except RemoteProtocolError:
        return
    assert isinstance(message, MESSAGE_TYPES)


@given(st.binary(max_size=200))
def test_t32_random_bytes_are_a_message_or_refused(data: bytes) -> None:
    """No other exception ever leaves the decoder."""
    _decode_or_refuse(data)


_JSONLIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40)
    | st.sampled_from([FOLDER, CONTENT, DEVICE]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 99), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.sampled_from(MESSAGE_TYPES), st.lists(_JSONLIKE, max_size=10))
def test_t32_wrong_fields_are_a_message_or_refused(kind: type[Message], fields: Any) -> None:
    """Well-formed msgpack of the wrong shape is refused in the same way."""
    _decode_or_refuse(U([kind.__struct_config__.tag, *fields]))


@given(st.sampled_from(EXAMPLES), st.data())
def test_t32_a_flipped_bit_is_a_message_or_refused(example: Message, data: Any) -> None:
    """So is a valid message with one bit changed or its end cut off."""
    valid = bytearray(encode(example))
    at = data.draw(st.integers(0, len(valid) * 8 - 1))
    valid[at // 8] ^= 1 << at % 8
    _decode_or_refuse(bytes(valid))
    _decode_or_refuse(bytes(valid[: at // 8]))
