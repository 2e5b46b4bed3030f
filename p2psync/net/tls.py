"""The TLS transport: listens on a port nobody chose, dials numeric addresses.

What comes in is a stranger until `protocol.auth` says otherwise: it gets one of few places, a
share of them per address, ten seconds and 4 KiB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Self

from p2psync.errors import ChannelClosedError, P2PSyncError
from p2psync.net.acceptor import ANYWHERE, Acceptor, Places
from p2psync.net.addresses import resolve
from p2psync.net.certificate import Certificate, client_context
from p2psync.net.channel import Channel
from p2psync.net.tlschannel import TlsChannel
from p2psync.protocol import limits

log = logging.getLogger(__name__)

PLACES_PER_ADDRESS: Final = 16


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
        timeout_s: float,
        places: Places,
    ) -> None:
        """Use `open`."""
        self._certificate = certificate
        self._on_channel = on_channel
        self._timeout_s = timeout_s
        self._places = places
        self._acceptor = Acceptor(self._take)
        self._tasks: set[asyncio.Task[None]] = set()
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
        taken = Places(places, places_per_address)
        listener = cls(certificate, on_channel, timeout_s, taken)
        listener._acceptor.listen(hosts, port)
        return listener

    @property
    def port(self) -> int:
        """Where to dial."""
        return self._acceptor.port

    @property
    def paused(self) -> bool:
        """True while the process has no descriptors for further connections."""
        return self._acceptor.paused

    async def close(self) -> None:
        """Listen no more, and end every `on_channel` that still runs."""
        self._acceptor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, connection: socket.socket, host: str) -> None:
        give_back = self._places.take(host)
        if give_back is None:
            connection.close()
            log.debug("refused a connection from %s: too many strangers", host)
            return
        channel = TlsChannel(self._certificate.server_context, self._certificate.fingerprint)
        deadline = self._loop.call_later(self._timeout_s, channel.abort, "took too long")

        def settled() -> None:
            deadline.cancel()
            give_back()

        channel.on_settled = settled
        task = self._loop.create_task(self._serve(channel, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, channel: TlsChannel, connection: socket.socket) -> None:
        try:
            with contextlib.closing(connection):
                # the transport gets its own descriptor, so that this one can always be closed
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
