"""Takes TCP connections, of strangers too: few at once, shared out, and never worn out."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from p2psync.net.addresses import SocketAddress, host_of, resolve, share_of

log = logging.getLogger(__name__)

ANYWHERE: Final = ("::",)
"""Every address of this machine, IPv6 and IPv4 (or IPv4 alone where there is no IPv6)."""

_BACKLOG: Final = 128
_ACCEPTS_PER_TURN: Final = 16
_PAUSE_S: Final = 0.25  # when the process has no descriptors left
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Places:
    """The places strangers may take, in all and from one IPv4 address or IPv6 /64."""

    def __init__(self, total: int, per_address: int) -> None:
        """Start with all places free."""
        self._total = total
        self._per_address = per_address
        self._taken: Counter[str] = Counter()

    def take(self, host: str) -> Callable[[], None] | None:
        """Take a place; return what gives it back (idempotent), or None if none is free."""
        share = share_of(host)
        if self._taken.total() >= self._total or self._taken[share] >= self._per_address:
            return None
        self._taken[share] += 1
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._taken[share] -= 1
                self._taken += Counter()  # forgets who has none

        return give_back


class Acceptor:
    """Listening sockets that hand over each connection with the host it comes from.

    Without free descriptors it pauses and goes on, whatever happens: it ends only by `close`.
    """

    def __init__(self, take: Callable[[socket.socket, str], None]) -> None:
        """take: owns the non-blocking socket from then on, and must not raise."""
        self.port = 0
        self._take = take
        self._sockets: list[socket.socket] = []
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def paused(self) -> bool:
        """True while the process has no descriptors for further connections."""
        return bool(self._pauses)

    def listen(self, hosts: Sequence[str], port: int) -> None:
        """Listen on numeric addresses, all at one port; 0 for one that is free.

        Raises:
            OSError: the port is taken or an address is not ours; nothing is listened on then.
        """
        try:
            for host in hosts:
                listening = _listening_socket(host, port or self.port)
                self._sockets.append(listening)
                self.port = listening.getsockname()[1]
        except OSError:
            self.close()
            raise
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def close(self) -> None:
        """Listen no more; what was accepted stays. Idempotent."""
        for pause in self._pauses.values():
            pause.cancel()
        self._pauses.clear()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._pause(listening, error)
                    return
                continue  # that one connection is gone already
            connection.setblocking(False)
            self._take(connection, host_of(address))

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        log.warning("cannot take connections for a moment: %s", error.strerror)
        self._loop.remove_reader(listening)
        self._pauses[listening] = self._loop.call_later(_PAUSE_S, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._loop.add_reader(listening, self._accept, listening)


def _listening_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; "::" takes IPv4 too, and is 0.0.0.0 where IPv6 is missing."""
    try:
        family, address = resolve(host, port)
        return _bound(family, address)
    except OSError as error:
        if host != "::" or error.errno == errno.EADDRINUSE:
            raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - reachable is the point


def _bound(family: socket.AddressFamily, address: SocketAddress) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            dual = address[0] == "::"
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not dual))
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
