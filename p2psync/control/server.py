"""The agent's end of the control socket: a stream of replies per request, for our user only.

The socket lies in a 0700 directory, is 0600 itself, and every caller's uid is asked of the
kernel. A caller that hangs up cancels what it had asked for: Ctrl-C, a killed command and a
lost terminal all look the same from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from p2psync import __version__
from p2psync.control import wire
from p2psync.control.messages import (
    REQUEST_BYTES,
    Answer,
    Question,
    Reply,
    Request,
    Result,
    Started,
)
from p2psync.errors import ExitCode, P2PSyncError, UserError

log = logging.getLogger(__name__)

CALLERS: Final = 64
SOCKET_MODE: Final = 0o600
REQUEST_TIMEOUT_S: Final = 10.0
ACCEPT_PAUSE_S: Final = 0.2

Ask = Callable[[Question], Awaitable[bool]]
"""Puts a question to the caller and returns the answer; False when nobody is there."""

Handler = Callable[[Request, Ask], AsyncGenerator[Reply, None]]
"""Carries out a request. The replies end with a `Result`; closing the generator ends the work.

A `P2PSyncError` raised becomes the `Result`; a `UserError` with its own exit code.
"""


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """Give a listening socket at path, replacing a stale one; the agent's lock is held.

    Raises:
        UserError: the directory cannot hold a socket.
    """
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            path.unlink(missing_ok=True)
            with wire.short_path(path) as address:
                server.bind(address)
            path.chmod(SOCKET_MODE)
            server.listen(CALLERS)
        except OSError as error:
            raise UserError(
                f"The control socket {path} cannot be made ({error.strerror}). Choose a home "
                "on another disk: p2psync --home DIR …",
                ExitCode.NO_AGENT,
            ) from error
        server.setblocking(False)
        yield server
    finally:
        server.close()
        path.unlink(missing_ok=True)


def caller(connection: socket.socket) -> tuple[int, int]:
    """Return (pid, uid) of the process at the other end, from the kernel."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _gid = struct.unpack("3i", raw)
    return pid, uid


async def serve(server: socket.socket, handle: Handler) -> None:
    """Answer those who call the listening socket, until cancelled; then hang up on all."""
    async with asyncio.TaskGroup() as group:
        door = _Door(server, handle, group)
        door.open()
        try:
            await asyncio.Event().wait()
        finally:
            door.close()


class _Door:
    """Takes callers in, so many at a time.

    Not `loop.sock_accept`: cancelled at the wrong moment it loses a caller it has accepted.
    """

    def __init__(
        self, server: socket.socket, handle: Handler, group: asyncio.TaskGroup
    ) -> None:
        self._server = server
        self._handle = handle
        self._group = group
        self._calls: dict[asyncio.Task[None], socket.socket] = {}
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._loop.add_reader(self._server, self._take)

    def close(self) -> None:
        self._loop.remove_reader(self._server)
        if self._pause is not None:
            self._pause.cancel()

    def _take(self) -> None:
        try:
            connection, _ = self._server.accept()
        except BlockingIOError:  # the caller has gone again
            return
        except OSError as error:  # out of descriptors: callers wait, the agent lives
            log.warning("a command could not be taken: %s", error)
            self.close()
            self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self.open)
            return
        if len(self._calls) >= CALLERS or caller(connection)[1] not in (0, os.geteuid()):
            connection.close()
            return
        call = self._group.create_task(_answer(connection, self._handle))
        self._calls[call] = connection
        call.add_done_callback(self._left)

    def _left(self, call: asyncio.Task[None]) -> None:
        # one cancelled before its first step has closed nothing itself
        self._calls.pop(call).close()


async def _answer(connection: socket.socket, handle: Handler) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        await _Call(reader, writer).run(handle)
    except EOFError:
        log.debug("a caller hung up")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


class _Call:
    """One caller's conversation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answers: asyncio.Queue[bool] = asyncio.Queue(maxsize=1)

    async def run(self, handle: Handler) -> None:
        """Read the request and reply to it, as long as the caller listens."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                request = await self._receive()
        except TimeoutError:
            return
        except ValueError as error:
            await self._send(_not_understood(error))
            return
        await self._send(Started(__version__))
        work = asyncio.create_task(self._work(request, handle))
        presence = asyncio.create_task(self._listen())
        try:
            await asyncio.wait((work, presence), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, presence):
                task.cancel()
            outcomes = await asyncio.gather(work, presence, return_exceptions=True)
        if isinstance(outcomes[0], Exception):
            raise outcomes[0]

    async def _work(self, request: Request, handle: Handler) -> None:
        try:
            async with contextlib.aclosing(handle(request, self._ask)) as replies:
                async for reply in replies:
                    await self._send(reply)
        except UserError as error:
            await self._send(Result(int(error.exit_code), error.message))
        except P2PSyncError as error:
            log.warning("a command failed: %s", error)
            await self._send(Result(int(ExitCode.SOME_FAILED), str(error)))
        except EOFError:
            raise
        except Exception:
            log.exception("a command failed because of a bug")
            await self._send(
                Result(int(ExitCode.SOME_FAILED), "The agent failed; its log says where.")
            )

    async def _listen(self) -> None:
        """Take answers until the caller hangs up."""
        with contextlib.suppress(EOFError, ValueError):
            while True:
                message = await self._receive()
                if not isinstance(message, Answer) or self._answers.full():
                    return
                self._answers.put_nowait(message.yes)

    async def _ask(self, question: Question) -> bool:
        await self._send(question)
        return await self._answers.get()

    async def _receive(self) -> Request:
        try:
            head = await self._reader.readexactly(wire.LENGTH)
            body = await self._reader.readexactly(wire.body_length(head, REQUEST_BYTES))
        except OSError as error:
            raise EOFError from error
        return wire.decode_request(body)

    async def _send(self, reply: Reply) -> None:
        try:
            self._writer.write(wire.encode(reply))
            await self._writer.drain()
        except OSError as error:
            raise EOFError from error


def _not_understood(error: ValueError) -> Result:
    log.warning("a command was not understood: %s", error)
    return Result(
        int(ExitCode.NO_AGENT),
        "The agent that runs is of another version than this command. "
        "End it with `p2psync stop` and try again.",
    )
