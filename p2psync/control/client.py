"""The command line's end of the control socket: plain blocking code, quick to import."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2psync.control import wire
from p2psync.control.messages import REPLY_BYTES, Answer, Reply, Request, Result, Started
from p2psync.errors import ExitCode, UserError

ANSWER_TIMEOUT_S: Final = 10.0


class NoAgentError(UserError):
    """No agent listens for this home."""

    def __init__(self) -> None:
        super().__init__(
            "The agent is not running. Start it with `p2psync start`.", ExitCode.NO_AGENT
        )


class Client:
    """One conversation with the agent; leaving the context hangs up, which ends its work."""

    def __init__(self, path: Path) -> None:
        """Call the agent whose control socket is at path.

        Raises:
            NoAgentError: nobody listens there.
            UserError: somebody does, but the socket is not ours to use.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_TIMEOUT_S)
        try:
            with wire.short_path(path) as address:
                self._socket.connect(address)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as error:
            self._socket.close()
            raise NoAgentError from error
        except OSError as error:
            self._socket.close()
            raise UserError(
                f"The agent at {path} cannot be reached ({error.strerror or error}).",
                ExitCode.NO_AGENT,
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    @property
    def agent_pid(self) -> int:
        """The pid of the process that listens, from the kernel."""
        raw = self._socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
        )
        pid: int = struct.unpack("3i", raw)[0]
        return pid

    def request(self, message: Request) -> Iterator[Reply]:
        """Send the one request and yield what comes back; the last is a `Result`.

        The agent must take the request within 10 s; after that its work may take any time.

        Raises:
            UserError: the agent does not answer, or ended before its work was done.
        """
        try:
            self._socket.sendall(wire.encode(message))
            first = self._receive()
            if not isinstance(first, Started):
                yield first
                return
            self._socket.settimeout(None)
            while True:
                reply = self._receive()
                yield reply
                if isinstance(reply, Result):
                    return
        except TimeoutError as error:
            raise UserError(
                "The agent does not answer. End it with `p2psync stop` and try again.",
                ExitCode.NO_AGENT,
            ) from error
        except (OSError, EOFError) as error:
            raise UserError(
                "The agent ended before it was done. Its log says why; "
                "`p2psync start` starts it again.",
                ExitCode.NO_AGENT,
            ) from error
        except ValueError as error:
            raise UserError(
                "The agent that runs is of another version than this command. "
                "End it with `p2psync stop` and try again.",
                ExitCode.NO_AGENT,
            ) from error

    def answer(self, yes: bool) -> None:
        """Answer a `Question`."""
        self._socket.sendall(wire.encode(Answer(yes)))

    def _receive(self) -> Reply:
        length = wire.body_length(self._exactly(wire.LENGTH), REPLY_BYTES)
        return wire.decode_reply(self._exactly(length))

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._socket.recv(min(size - len(received), 1 << 20))
            if not part:
                raise EOFError
            received += part
        return bytes(received)
