"""The TLS transport: listens on a port nobody chose, dials numeric addresses.

What comes in is a stranger until `protocol.auth` says otherwise: it gets one of few places, a
share of them per address, ten seconds and 4 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

from p2psync.errors import ChannelClosedError, P2PSyncError
from p2psync.net.addresses import SocketAddress, host_of, resolve, share_of
from p2psync.net.certificate import Certificate, client_context
from p2psync.net.channel import Channel
from p2psync.net.tlschannel import TlsChannel
from p2psync.protocol import limits

log = logging.getLogger(__name__)

ANYWHERE: Final = ("::",)
"""Every address of this machine, IPv6 and IPv4 (or IPv4 alone where there is no IPv6)."""

PLACES_PER_ADDRESS: Final = 16
_BACKLOG: Final = 128
_ACCEPTS_PER_TURN: Final = 16
_PAUSE_S: Final = 0.25  # when the process has no descriptors left
_EXHAUSTED: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


async def dial(host: str, port: int, timeout_s: float) -> TlsChannel:
    """Connect to a numeric address, IPv6 scoped where it is link-local.

    Raises:
        ChannelClosedError: nobody answered in time, or what answered does not speak TLS 1.3.
    """
    channel = TlsChannel(client_context(), None)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            family, address = resolve(host, port)
            with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
                connection.setblocking(False)
                await loop.sock_connect(connection, address)
                # the transport gets its own descriptor, so that this one can always be closed
                await loop.create_connection(lambda: channel, sock=connection.dup())
            await channel.ready
    except BaseException as error:
        channel.abort("not connected")
        if isinstance(error, TimeoutError):
            raise ChannelClosedError("nobody answered") from error
        if isinstance(error, OSError):
            raise ChannelClosedError(f"no connection: {error.strerror or error}") from error
        raise
    return channel


class TlsListener:
    """Takes connections and hands each, once TLS stands, to `on_channel`."""

    def __init__(
        self,
        certificate: Certificate,
        on_channel: Callable[[Channel], Awaitable[None]],
        *,
        timeout_s: float = limits.AUTH_TIMEOUT_S,
        places: int = limits.UNAUTHENTICATED_CHANNELS,
        places_per_address: int = PLACES_PER_ADDRESS,
    ) -> None:
        """Use `open`."""
        self.port = 0
        self._certificate = certificate
        self._on_channel = on_channel
        self._timeout_s = timeout_s
        self._places = places
        self._places_per_address = places_per_address
        self._strangers: Counter[str] = Counter()
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(
        cls,
        certificate: Certificate,
        on_channel: Callable[[Channel], Awaitable[None]],
        *,
        hosts: Sequence[str] = ANYWHERE,
        port: int = 0,
        timeout_s: float = limits.AUTH_TIMEOUT_S,
        places: int = limits.UNAUTHENTICATED_CHANNELS,
        places_per_address: int = PLACES_PER_ADDRESS,
    ) -> Self:
        """Listen.

        Args:
            certificate: usually `process_certificate()`.
            on_channel: called in a task of its own for each channel with TLS; it has
                timeout_s, counted from the accept, until it calls `Channel.admit`, and may
                go on with the channel after that. When it raises, the channel is closed.
            hosts: numeric addresses to listen on, all at one port.
            port: 0 for one that is free.
            timeout_s: how long a stranger may take to become an admitted peer.
            places: how many strangers at once.
            places_per_address: how many of them from one IPv4 address or IPv6 /64.

        Raises:
            OSError: the port is taken or an address is not ours.
        """
        listener = cls(
            certificate,
            on_channel,
            timeout_s=timeout_s,
            places=places,
            places_per_address=places_per_address,
        )
        try:
            listener._listen(hosts, port)
        except OSError:
            await listener.close()
            raise
        return listener

    @property
    def paused(self) -> bool:
        """True while the process has no descriptors for further connections."""
        return bool(self._pauses)

    async def close(self) -> None:
        """Listen no more, and end every `on_channel` that still runs."""
        for pause in self._pauses.values():
            pause.cancel()
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _listen(self, hosts: Sequence[str], port: int) -> None:
        for host in hosts:
            listening = _listening_socket(host, port or self.port)
            self._sockets.append(listening)
            self.port = listening.getsockname()[1]
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

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
            self._take(connection, host_of(address))

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        log.warning("cannot take connections for a moment: %s", error.strerror)
        self._loop.remove_reader(listening)
        self._pauses[listening] = self._loop.call_later(_PAUSE_S, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        del self._pauses[listening]
        self._loop.add_reader(listening, self._accept, listening)

    def _take(self, connection: socket.socket, host: str) -> None:
        share = share_of(host)
        if (
            self._strangers.total() >= self._places
            or self._strangers[share] >= self._places_per_address
        ):
            connection.close()
            log.debug("refused a connection from %s: too many strangers", host)
            return
        connection.setblocking(False)
        channel = TlsChannel(self._certificate.server_context, self._certificate.fingerprint)
        deadline = self._loop.call_later(self._timeout_s, channel.abort, "took too long")
        self._strangers[share] += 1

        def settled() -> None:
            if not deadline.cancelled():
                deadline.cancel()
                self._strangers[share] -= 1
                self._strangers += Counter()  # drops the zeros

        channel.on_settled = settled
        task = self._loop.create_task(self._serve(channel, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, channel: TlsChannel, connection: socket.socket) -> None:
        try:
            with contextlib.closing(connection):
                await self._loop.connect_accepted_socket(lambda: channel, connection.dup())
            await channel.ready
            await self._on_channel(channel)
        except (P2PSyncError, OSError) as error:
            log.debug("a connection from %s ended: %s", channel.address or "nowhere", error)
            channel.abort("failed")
        except asyncio.CancelledError:
            channel.abort("not listening any more")
            raise
        except Exception:
            log.exception("a connection from %s failed", channel.address)
            channel.abort("failed")
        finally:
            channel.on_settled()


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
