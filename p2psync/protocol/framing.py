"""Messages over a stream of bytes: a length before each, checked before memory is taken.

A frame is a u32, big-endian, and that many bytes. The highest bit says that it is a data frame:
set exactly when the message is longer than a control frame may be, so that a length out of a
peer's hands never surprises anyone. No message is empty.
"""

from __future__ import annotations

from typing import Final

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol import limits

HEADER_BYTES: Final = 4
DATA_BIT: Final = 1 << 31


def header(length: int) -> bytes:
    """Return the four bytes to send before a message of this length.

    Raises:
        LocalProtocolError: nothing may be sent that long, or empty.
    """
    if not 0 < length <= limits.MESSAGE_BYTES:
        raise LocalProtocolError(f"a message of {length} bytes")
    flag = DATA_BIT if length > limits.CONTROL_FRAME else 0
    return (length | flag).to_bytes(HEADER_BYTES, "big")


def frame(message: bytes) -> bytes:
    """Return the message with its header, in one piece."""
    return header(len(message)) + message


class FrameReader:
    """Cuts a stream of bytes back into messages, however it was split.

    limit: the longest message taken; the owner raises it to `limits.MESSAGE_BYTES` once the
    peer is authenticated. A peer must then not send anything longer than the old limit before
    it has heard something that only the authenticated owner sends: what arrived in the same
    piece as the last small message is cut with the old limit.
    """

    def __init__(self, limit: int = limits.UNAUTHENTICATED_BYTES) -> None:
        self.limit = limit
        self._rest = bytearray()

    @property
    def buffered(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes of the stream; return the messages they complete.

        Each byte is copied at most twice, whatever the pieces.

        Raises:
            RemoteProtocolError: a frame is empty, longer than `limit`, or of the wrong class;
                the stream cannot be read on.
        """
        if not self._rest:
            messages, taken = self._cut(memoryview(data))
            self._rest += memoryview(data)[taken:]
            return messages
        self._rest += data
        with memoryview(self._rest) as view:
            messages, taken = self._cut(view)
        del self._rest[:taken]
        return messages

    def _cut(self, data: memoryview) -> tuple[list[bytes], int]:
        """Return the whole messages at the start of data, and how many bytes they take."""
        messages: list[bytes] = []
        at = 0
        while len(data) - at >= HEADER_BYTES:
            word = int.from_bytes(data[at : at + HEADER_BYTES], "big")
            end = at + HEADER_BYTES + self._length(word)
            if end > len(data):
                break
            messages.append(bytes(data[at + HEADER_BYTES : end]))
            at = end
        return messages, at

    def _length(self, word: int) -> int:
        length = word & ~DATA_BIT
        if not 0 < length <= self.limit:
            raise RemoteProtocolError(f"a frame of {length} bytes, at most {self.limit} taken")
        if (length > limits.CONTROL_FRAME) != bool(word & DATA_BIT):
            raise RemoteProtocolError(f"a frame of {length} bytes in the wrong class")
        return length
