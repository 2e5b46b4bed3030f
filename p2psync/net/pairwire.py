"""Carries the messages of pairing: over plain TCP, or through a mailbox where TCP is dropped.

Neither encrypts or proves anything: the four messages do that themselves (design 5.7), and who
has them in his hands can only make pairing fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Final, Protocol, Self

from p2psync.errors import ChannelClosedError, LocalProtocolError
from p2psync.net.acceptor import ANYWHERE, Acceptor, Places
from p2psync.net.addresses import SocketAddress, host_of, printed, resolve
from p2psync.net.mailbox import Mailbox
from p2psync.protocol import limits
from p2psync.protocol.framing import FrameReader, frame

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = limits.PAIRING_WELCOME
STRANGER_IDLE_S: Final = 10.0
DIALLER_IDLE_S: Final = 30.0  # the other side may keep guesses waiting
MAILBOX_IDLE_S: Final = 30.0
LINKS: Final = 16
LINKS_PER_ADDRESS: Final = 4
_NONCE: Final = 8
_KEPT_S: Final = 60  # how long a message waits in a mailbox


class PairingLink(Protocol):
    """Messages of up to 64 KiB between two devices that do not know each other yet."""

    address: str
    """Where the other end is, for people."""

    async def send(self, message: bytes) -> None:
        """Send one message; raises ChannelClosedError when that is no longer possible."""
        ...

    async def receive(self) -> bytes:
        """Return the next message.

        Raises:
            ChannelClosedError: none will come, or none came for too long.
            RemoteProtocolError: what came is no message.
        """
        ...

    async def close(self) -> None:
        """End the link; what was sent still arrives. Idempotent."""
        ...


class TcpLink:
    """A link over a TCP connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle_s: float
    ) -> None:
        """Take over a connection; idle_s: how long `receive` waits."""
        peer: SocketAddress | None = writer.get_extra_info("peername")
        self.address = printed(host_of(peer), peer[1]) if peer else "gone"
        self._reader = reader
        self._writer = writer
        self._idle_s = idle_s
        self._frames = FrameReader(MESSAGE_BYTES)
        self._messages: deque[bytes] = deque()

    async def send(self, message: bytes) -> None:
        """Send one message."""
        _check(message)
        if self._writer.is_closing():  # uvloop raises when written to what was reset
            raise ChannelClosedError("connection lost")
        try:
            async with asyncio.timeout(self._idle_s):
                self._writer.write(frame(message))
                await self._writer.drain()
        except (TimeoutError, OSError) as error:
            raise ChannelClosedError("it takes nothing more") from error

    async def receive(self) -> bytes:
        """Return the next message."""
        try:
            async with asyncio.timeout(self._idle_s):
                while not self._messages:
                    data = await self._reader.read(16 * limits.KIB)
                    if not data:
                        raise ChannelClosedError("closed by the other side")
                    self._messages.extend(self._frames.feed(data))
        except TimeoutError as error:
            raise ChannelClosedError("silent for too long") from error
        except OSError as error:
            raise ChannelClosedError(f"connection lost: {error.strerror}") from error
        return self._messages.popleft()

    async def close(self) -> None:
        """Close the connection; what is written already still goes out."""
        self._writer.close()


class MailboxLink:
    """A link through a mailbox: each message has a slot of its own.

    The first goes to the slot of the code's slot word and brings a nonce; the others have the
    word, the nonce, the sending side and a number in the name of their slot.
    """

    address = "mailbox"

    def __init__(
        self, mailbox: Mailbox, word: str, nonce: bytes, *, opening: bool, first: bytes = b""
    ) -> None:
        """first: on the side that was opened to, the message that opened the link."""
        self._mailbox = mailbox
        self._word = word
        self._nonce = nonce
        self._sides = ("a", "b") if opening else ("b", "a")  # ours, theirs
        self._opening = opening
        self._first = first
        self._sent = 0
        self._received = 1 if first else 0
        self._closed = False

    async def send(self, message: bytes) -> None:
        """Put one message into the mailbox."""
        _check(message)
        if self._closed:
            raise ChannelClosedError("closed here")
        slot = self._slot(self._sides[0], self._sent)
        if self._opening and not self._sent:
            slot, message = _open_slot(self._word), self._nonce + message
        self._sent += 1
        try:
            await self._mailbox.put(slot, message, _KEPT_S)
        except (OSError, ValueError) as error:
            raise ChannelClosedError(f"no mailbox: {error}") from error

    async def receive(self) -> bytes:
        """Wait for the next message to be put into the mailbox."""
        if self._first:
            first, self._first = self._first, b""
            return first
        slot = self._slot(self._sides[1], self._received)
        try:
            async with (
                asyncio.timeout(MAILBOX_IDLE_S),
                aclosing(self._mailbox.watch(slot)) as messages,
            ):
                async for message in messages:
                    self._received += 1
                    return message
        except TimeoutError as error:
            raise ChannelClosedError("silent for too long") from error
        except OSError as error:
            raise ChannelClosedError(f"no mailbox: {error}") from error
        raise ChannelClosedError("the mailbox is closed")

    async def close(self) -> None:
        """Send no more; what waits in the mailbox goes when its time is over."""
        self._closed = True

    def _slot(self, side: str, number: int) -> str:
        return f"{self._word}-{self._nonce.hex()}-{side}{number}"


class PairingListener:
    """Waits for devices that want to pair: at a TCP port and, if there is one, in a mailbox."""

    def __init__(self, idle_s: float) -> None:
        """Use `open`."""
        self._idle_s = idle_s
        self._places = Places(LINKS, LINKS_PER_ADDRESS)
        self._links: asyncio.Queue[PairingLink] = asyncio.Queue(LINKS)
        self._acceptor = Acceptor(self._take)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        *,
        hosts: Sequence[str] = ANYWHERE,
        port: int = 0,
        mailbox: Mailbox | None = None,
        word: str = "",
        idle_s: float = STRANGER_IDLE_S,
    ) -> Self:
        """Listen; at most 16 links are open at once, 4 of one address.

        Args:
            hosts: numeric addresses to listen on.
            port: 0 for one that is free.
            mailbox: where to look for devices that no TCP reaches.
            word: the slot word of the code, for the mailbox.
            idle_s: how long a link may be silent.

        Raises:
            OSError: the port is taken or an address is not ours.
        """
        listener = cls(idle_s)
        listener._acceptor.listen(hosts, port)
        if mailbox is not None:
            listener._start(listener._watch(mailbox, word))
        return listener

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._acceptor.port

    async def links(self) -> AsyncIterator[PairingLink]:
        """Yield every link that is opened to us; the caller closes each."""
        while True:
            yield await self._links.get()

    async def close(self) -> None:
        """Listen no more; links that were yielded stay."""
        self._acceptor.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while not self._links.empty():
            await self._links.get_nowait().close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self, connection: socket.socket, host: str) -> None:
        give_back = self._places.take(host)
        if give_back is None or self._links.full():
            connection.close()
            return
        self._start(self._serve(connection, give_back))

    async def _serve(self, connection: socket.socket, give_back: Callable[[], None]) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            with contextlib.closing(connection):
                reader, writer = await asyncio.open_connection(sock=connection.dup())
            await self._links.put(TcpLink(reader, writer, self._idle_s))
            await writer.wait_closed()
        except OSError as error:
            log.debug("a pairing connection ended: %s", error)
        finally:
            give_back()

    async def _watch(self, mailbox: Mailbox, word: str) -> None:
        try:
            async with aclosing(mailbox.watch(_open_slot(word))) as messages:
                async for message in messages:
                    nonce, first = message[:_NONCE], message[_NONCE:]
                    if first and not self._links.full():
                        link = MailboxLink(mailbox, word, nonce, opening=False, first=first)
                        self._links.put_nowait(link)
        except OSError as error:
            log.warning("no mailbox for pairing: %s", error)


async def dial_pairing(host: str, port: int, timeout_s: float) -> TcpLink:
    """Open a link to a place where a slot is offered.

    Raises:
        ChannelClosedError: nobody answered there in time.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            family, address = resolve(host, port)
            with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
                connection.setblocking(False)
                await loop.sock_connect(connection, address)
                reader, writer = await asyncio.open_connection(sock=connection.dup())
    except TimeoutError as error:
        raise ChannelClosedError("nobody answered") from error
    except OSError as error:
        raise ChannelClosedError(f"no connection: {error.strerror or error}") from error
    return TcpLink(reader, writer, DIALLER_IDLE_S)


def mailbox_pairing(mailbox: Mailbox, word: str) -> MailboxLink:
    """Return a link through the mailbox to whoever offers the slot word there."""
    return MailboxLink(mailbox, word, secrets.token_bytes(_NONCE), opening=True)


def _open_slot(word: str) -> str:
    return f"{word}-open"


def _check(message: bytes) -> None:
    if not 0 < len(message) <= MESSAGE_BYTES - _NONCE:
        raise LocalProtocolError(f"a pairing message of {len(message)} bytes")
