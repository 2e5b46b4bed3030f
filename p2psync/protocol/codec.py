"""Messages to bytes and back; what comes back has the types and limits `messages` declares.

The bytes are a peer's: whatever is in them, `decode` returns a message or raises
RemoteProtocolError, and takes memory only in proportion to what really arrived.
"""

from __future__ import annotations

from typing import Final, Union

import msgspec

from p2psync.core.ids import CONTENT_BYTES
from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits
from p2psync.protocol.messages import DATA_MESSAGES, MESSAGE_TYPES, Manifest, Message


def plain_bytes(value: object) -> bytes:
    """Return a DeviceId's or FolderId's bytes: msgspec itself encodes no subclass of bytes."""
    if isinstance(value, bytes):
        return bytes(value)
    raise NotImplementedError(f"{type(value).__name__} does not travel")


encoder: Final = msgspec.msgpack.Encoder(enc_hook=plain_bytes)
"""Encodes anything that travels, DeviceIds and FolderIds included."""

_decoder: Final[msgspec.msgpack.Decoder[Message]] = msgspec.msgpack.Decoder(
    Union[MESSAGE_TYPES]  # noqa: UP007 - a union of a tuple cannot be written with |
)
_DATA_TAGS: Final = frozenset(kind.__struct_config__.tag for kind in DATA_MESSAGES)


def encode(message: Message) -> bytes:
    """Return the message's bytes.

    Raises:
        LocalProtocolError: it is larger than a frame of its class may be.
    """
    data = encoder.encode(message)
    largest = limits.DATA_FRAME if isinstance(message, DATA_MESSAGES) else limits.CONTROL_FRAME
    if len(data) > largest:
        raise LocalProtocolError(f"{type(message).__name__} of {len(data)} bytes")
    return data


def decode(data: bytes) -> Message:
    """Return the message in these bytes; fields beyond those known are left out.

    Raises:
        RemoteProtocolError: anything else than one whole message within its limits.
    """
    if len(data) > limits.CONTROL_FRAME:
        _check_class(data)
    try:
        message = _decoder.decode(data)
    except (ValueError, RecursionError) as error:  # of msgspec and of UTF-8; nesting
        raise RemoteProtocolError(f"not a message: {error}") from error
    if isinstance(message, Manifest) and len(message.hashes) != CONTENT_BYTES * len(
        message.sizes
    ):
        raise RemoteProtocolError("a manifest with other many hashes than sizes")
    return message


def _check_class(data: bytes) -> None:
    """Refuse what is too large before decoding it: byte 1 is the number (array header: 1)."""
    if len(data) > limits.DATA_FRAME or data[1] not in _DATA_TAGS:
        raise RemoteProtocolError(f"a message of {len(data)} bytes")
