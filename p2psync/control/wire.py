"""Control messages as bytes: a length in four bytes, then MessagePack; and a socket's address.

Both ends are local and ours, yet typed and bounded: an agent of another version, or a program
that found the socket by accident, gets an error and harms nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from p2psync.control.messages import Reply, Request

LENGTH: Final = 4
SOCKET_PATH: Final = 100  # bytes; the kernel takes 107

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    """Return the whole frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(LENGTH, "big") + body


def body_length(head: bytes, limit: int) -> int:
    """Return the length that the four bytes announce; ValueError above the limit (bytes)."""
    length = int.from_bytes(head, "big")
    if length > limit:
        raise ValueError(f"a message of {length} bytes is too long")
    return length


def decode_request(body: bytes) -> Request:
    """Read a request; ValueError says what is wrong with it."""
    return _requests.decode(body)


def decode_reply(body: bytes) -> Reply:
    """Read a reply; ValueError says what is wrong with it."""
    return _replies.decode(body)


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give an address for a Unix socket at path, however long the path is.

    A long one is reached through its directory's descriptor, so the address holds only as long
    as the context.
    """
    if len(os.fsencode(path)) <= SOCKET_PATH:
        yield os.fspath(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
