"""A UDP socket on an event loop that takes all that waits in it at once.

asyncio's own takes one datagram in a turn of the loop, which is a third of the time of a fast
transfer's receiver; uvloop's is not there on every machine. This one is the same on both.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

DRAIN: Final = 64  # datagrams in one go
_LARGEST: Final = 2_048  # nothing of ours comes near
_BUFFER_BYTES: Final = 1024 * 1024
_WAITING: Final = 256  # datagrams that wait for the device; further ones are dropped


class Datagrams(asyncio.DatagramTransport):
    """One bound socket; what arrives goes to `protocol.datagram_received`."""

    def __init__(self, bound: socket.socket, protocol: asyncio.DatagramProtocol) -> None:
        """Take over a bound, unconnected socket."""
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._socket = bound
        self._protocol = protocol
        self._waiting: deque[tuple[bytes, Any]] = deque()
        self._closing = False
        self.on_writable: Callable[[], None] | None = None
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._loop.add_reader(bound.fileno(), self._readable)
        protocol.connection_made(self)

    @property
    def blocked(self) -> bool:
        """True while the device takes nothing; `on_writable` is called when it does again."""
        return bool(self._waiting)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what there is to know: "socket", "sockname"."""
        if name == "socket":
            return self._socket
        if name == "sockname":
            return self._socket.getsockname()
        return default

    def is_closing(self) -> bool:
        """Say whether it is closed."""
        return self._closing

    def close(self) -> None:
        """Close it; what waits is dropped."""
        if not self._closing:
            self._closing = True
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Close it."""
        self.close()

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram."""
        self.send_all([data], addr)

    def send_all(self, datagrams: Iterable[Any], addr: Any) -> None:
        """Send some to one address; those the device does not take yet wait."""
        if self._closing:
            return
        for data in datagrams:
            if self._waiting or not self._sent(data, addr):
                self._wait(bytes(data), addr)

    def _sent(self, data: Any, addr: Any) -> bool:
        try:
            self._socket.sendto(data, addr)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._protocol.error_received(error)
        return True

    def _wait(self, data: bytes, addr: Any) -> None:
        if not self._waiting:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        if len(self._waiting) < _WAITING:
            self._waiting.append((data, addr))

    def _writable(self) -> None:
        while self._waiting and self._sent(*self._waiting[0]):
            self._waiting.popleft()
        if not self._waiting:
            self._loop.remove_writer(self._socket.fileno())
            if self.on_writable is not None:
                self.on_writable()

    def _readable(self) -> None:
        for _ in range(DRAIN):
            try:
                data, addr = self._socket.recvfrom(_LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._protocol.error_received(error)
                return
            self._protocol.datagram_received(data, addr)
            if self._closing:
                return
