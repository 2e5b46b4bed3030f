"""The conversation over a real Unix socket, both ends as the program uses them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from p2psync.control import server, wire
from p2psync.control.client import Client, NoAgentError
from p2psync.control.messages import (
    Code,
    GetStatus,
    Offer,
    Paired,
    Ping,
    Question,
    Reply,
    Request,
    Result,
    Share,
    Started,
    Stop,
)
from p2psync.errors import ExitCode, StoreError, UserError

OFFER = Offer("DEV", "pi", "photos", 3, 10, True)


class Agent:
    """Answers as an agent would, and tells what became of its work."""

    def __init__(self) -> None:
        self.withdrawn = asyncio.Event()
        self.calls: list[Request] = []

    async def handle(self, request: Request, ask: server.Ask) -> AsyncGenerator[Reply, None]:
        self.calls.append(request)
        match request:
            case Share(path=b"/endless"):
                try:
                    yield Code("one-two-three-four", 600)
                    await asyncio.Event().wait()
                finally:
                    self.withdrawn.set()
            case Share(path=b"/refused"):
                raise UserError("Not this one.", ExitCode.USAGE)
            case Share(path=b"/broken"):
                raise StoreError("the index is damaged")
            case Share(path=b"/bug"):
                raise ZeroDivisionError
            case Share(path=b"/ask"):
                yes = await ask(Question(OFFER, b"/x", True))
                yield Paired("DEV", str(yes))
                yield Result(0)
            case _:
                yield Result(0)


@contextlib.asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Agent]:
    agent = Agent()
    with server.listening(path) as listening:
        task = asyncio.create_task(server.serve(listening, agent.handle))
        try:
            yield agent
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def talk(path: Path, message: Request) -> list[Reply]:
    with Client(path) as client:
        return list(client.request(message))


async def in_thread(function: Callable[..., Any], *args: object) -> Any:
    return await asyncio.to_thread(function, *args)


async def test_a_request_is_answered_and_ends_with_a_result(path: Path) -> None:
    """Every conversation ends with exactly one Result."""
    async with serving(path) as agent:
        replies = await in_thread(talk, path, Ping())

    assert replies == [Result(0)]
    assert agent.calls == [Ping()]


@pytest.mark.parametrize(
    ("shared", "result"),
    [
        (b"/refused", Result(2, "Not this one.")),
        (b"/broken", Result(3, "the index is damaged")),
        (b"/bug", Result(3, "The agent failed; its log says where.")),
    ],
)
async def test_what_goes_wrong_in_the_agent_becomes_a_result(
    path: Path, shared: bytes, result: Result
) -> None:
    """No exception of the handler ends the server or leaves the caller without an answer."""
    async with serving(path):
        assert await in_thread(talk, path, Share(shared)) == [result]
        assert await in_thread(talk, path, Ping()) == [Result(0)]


@pytest.mark.parametrize("yes", [True, False])
async def test_a_question_comes_back_with_the_callers_answer(path: Path, yes: bool) -> None:
    """While a question is open nothing goes on; the answer reaches the one who asked."""

    def accept() -> list[Reply]:
        with Client(path) as client:
            replies = []
            for reply in client.request(Share(b"/ask")):
                replies.append(reply)
                if isinstance(reply, Question):
                    client.answer(yes)
            return replies

    async with serving(path):
        replies = await in_thread(accept)

    assert replies == [Question(OFFER, b"/x", True), Paired("DEV", str(yes)), Result(0)]


async def test_hanging_up_ends_the_work_that_was_asked_for(path: Path) -> None:
    """A caller that goes away, for whatever reason, withdraws what it had started."""

    def first_reply() -> Reply:
        with Client(path) as client:
            return next(client.request(Share(b"/endless")))

    async with serving(path) as agent:
        assert await in_thread(first_reply) == Code("one-two-three-four", 600)
        async with asyncio.timeout(5):
            await agent.withdrawn.wait()


async def test_the_end_of_the_agent_is_told_to_a_waiting_caller(path: Path) -> None:
    """A caller never waits for an agent that has gone."""
    code = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        with Client(path) as client:
            for _ in client.request(Share(b"/endless")):
                loop.call_soon_threadsafe(code.set)

    async with serving(path):
        waiting = asyncio.create_task(in_thread(wait))
        await code.wait()
    with pytest.raises(UserError, match="The agent ended") as caught:
        await waiting

    assert caught.value.exit_code == ExitCode.NO_AGENT


async def test_without_an_agent_the_caller_is_told_how_to_start_one(path: Path) -> None:
    """A missing and a stale socket say the same sentence, with exit code 8."""
    with pytest.raises(NoAgentError, match="p2psync start"):
        Client(path)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with pytest.raises(NoAgentError) as caught:
        Client(path)

    assert caught.value.exit_code == ExitCode.NO_AGENT
    async with serving(path):  # and a stale socket never stops the next agent
        assert await in_thread(talk, path, Ping()) == [Result(0)]


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        (wire.LENGTH * b"\0"),
        b"\0\1\0\1",
        b"\0\0\0\1\xc1",
        wire.encode(Paired("a", "b")),
    ],
    ids=["a huge length", "nothing", "above the limit", "no message", "a reply"],
)
async def test_t39_what_is_no_request_is_refused_with_a_sentence(
    path: Path, sent: bytes
) -> None:
    """Bytes that are no bounded, typed request get one Result and harm nothing."""

    def send() -> bytes:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5)
            raw.connect(str(path))
            raw.sendall(sent)
            return raw.makefile("rb").read()

    async with serving(path) as agent:
        answer = await in_thread(send)
        assert await in_thread(talk, path, Ping()) == [Result(0)]

    reply = wire.decode_reply(answer[wire.LENGTH :])
    assert isinstance(reply, Result)
    assert reply.exit == ExitCode.NO_AGENT
    assert "another version" in (reply.error or "")
    assert agent.calls == [Ping()]


def test_t39_the_socket_is_for_its_owner_only(path: Path) -> None:
    """The socket is 0600 whatever the umask, and gone when the server has ended."""
    before = os.umask(0)
    try:
        with server.listening(path):
            mode = stat.S_IMODE(path.stat().st_mode)
    finally:
        os.umask(before)

    assert mode == 0o600
    assert not path.exists()


async def test_a_socket_path_longer_than_the_kernel_allows_works(tmp_path: Path) -> None:
    """Homes may be deep: both ends reach the socket through its directory."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    path = directory / "control.sock"

    async with serving(path):
        assert await in_thread(talk, path, Ping()) == [Result(0)]


async def test_the_caller_knows_the_agents_process(path: Path) -> None:
    """The pid of the listening process comes from the kernel, not from a file."""

    def pid() -> int:
        with Client(path) as client:
            return client.agent_pid

    async with serving(path):
        assert await in_thread(pid) == os.getpid()


async def test_more_callers_than_allowed_are_hung_up_on(path: Path) -> None:
    """Callers are bounded; when some leave, the next is served."""
    async with serving(path):
        held = []
        for _ in range(server.CALLERS):
            one = socket.socket(socket.AF_UNIX)
            one.connect(str(path))
            held.append(one)
        with pytest.raises(UserError, match="The agent ended"):
            await in_thread(talk, path, Ping())
        for one in held:
            one.close()
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(UserError):
                    assert await in_thread(talk, path, Ping()) == [Result(0)]
                    break


def test_every_message_survives_the_wire() -> None:
    """What is encoded is decoded to the same, requests and replies alike."""
    for request in (Ping(), Stop(), GetStatus(), Share(b"/\xff", "n")):
        assert wire.decode_request(wire.encode(request)[wire.LENGTH :]) == request
    for reply in (Started("1"), Question(OFFER), Result(1, "x")):
        assert wire.decode_reply(wire.encode(reply)[wire.LENGTH :]) == reply
