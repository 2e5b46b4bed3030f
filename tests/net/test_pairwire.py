"""The links pairing goes over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from p2psync.errors import ChannelClosedError, LocalProtocolError, RemoteProtocolError
from p2psync.net.pairwire import (
    LINKS_PER_ADDRESS,
    MESSAGE_BYTES,
    PairingLink,
    PairingListener,
    dial_pairing,
    mailbox_pairing,
)
from tests.support.mailbox import Board

HERE = ("127.0.0.1",)
LONG_S = 10.0
Links = tuple[PairingLink, PairingLink]


async def next_link(listener: PairingListener) -> PairingLink:
    """Return the next link that is opened."""
    return await anext(aiter(listener.links()))


@pytest.fixture(params=["tcp", "mailbox"])
async def links(request: pytest.FixtureRequest) -> AsyncIterator[Links]:
    """Both ends of a link, over which one message has been sent each way."""
    board = Board()
    listener = await PairingListener.open(hosts=HERE, mailbox=board.end(), word="tiger")
    link: PairingLink
    if request.param == "tcp":
        link = await dial_pairing("127.0.0.1", listener.port, LONG_S)
    else:
        link = mailbox_pairing(board.end(), "tiger")
    await link.send(b"first")
    other = await next_link(listener)
    assert await other.receive() == b"first"
    yield link, other
    await link.close()
    await other.close()
    await listener.close()


async def test_messages_go_both_ways_in_order(links: Links) -> None:
    """Four messages of pairing, the largest ones too."""
    link, other = links
    for message in (b"x", b"y" * 1_000, bytes(MESSAGE_BYTES - 8)):
        await other.send(message)
        assert await link.receive() == message
        await link.send(message)
        assert await other.receive() == message


async def test_what_is_too_long_is_not_sent(links: Links) -> None:
    """That would be a bug of ours."""
    for message in (b"", bytes(MESSAGE_BYTES + 1)):
        with pytest.raises(LocalProtocolError):
            await links[0].send(message)


async def test_what_was_sent_before_a_close_arrives(links: Links) -> None:
    """The last message of a side may be its last act."""
    link, other = links
    await other.send(b"last")
    await other.close()
    assert await link.receive() == b"last"


async def test_links_of_two_devices_are_kept_apart() -> None:
    """Two that answer the same code through one mailbox do not get each other's messages."""
    board = Board()
    listener = await PairingListener.open(hosts=HERE, mailbox=board.end(), word="tiger")
    links = [mailbox_pairing(board.end(), "tiger") for _ in range(2)]
    for number, link in enumerate(links):
        await link.send(bytes([number + 1]))
        other = await next_link(listener)
        await other.send(b"for " + await other.receive())
    assert [await link.receive() for link in links] == [b"for \x01", b"for \x02"]
    await listener.close()


async def test_a_silent_connection_is_told_from_a_slow_one() -> None:
    """Who says nothing for too long is closed."""
    listener = await PairingListener.open(hosts=HERE, idle_s=0.05)
    link = await dial_pairing("127.0.0.1", listener.port, LONG_S)
    other = await next_link(listener)
    with pytest.raises(ChannelClosedError, match="silent"):
        await other.receive()
    await other.close()
    with pytest.raises(ChannelClosedError):
        await link.receive()
    await link.close()
    await listener.close()


async def test_t10_one_address_gets_few_links() -> None:
    """The rest are refused until one is closed."""
    listener = await PairingListener.open(hosts=HERE)
    links = []
    for _ in range(LINKS_PER_ADDRESS):
        links.append(await dial_pairing("127.0.0.1", listener.port, LONG_S))
        links.append(await next_link(listener))
    with contextlib.suppress(ChannelClosedError):
        refused = await dial_pairing("127.0.0.1", listener.port, LONG_S)
        with pytest.raises(ChannelClosedError):
            await refused.receive()
        await refused.close()
    await asyncio.gather(*(link.close() for link in links))
    await listener.close()


async def test_t10_garbage_ends_a_link() -> None:
    """What is no message is told apart from a closed connection."""
    listener = await PairingListener.open(hosts=HERE)
    with socket.create_connection(("127.0.0.1", listener.port)) as raw:
        other = await next_link(listener)
        raw.sendall(b"\xff\xff\xff\xff garbage")
        with pytest.raises(RemoteProtocolError):
            await other.receive()
        await other.close()
    await listener.close()


async def test_nobody_is_there() -> None:
    """A place where nobody listens is an error of the usual kind."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ChannelClosedError):
        await dial_pairing("127.0.0.1", port, LONG_S)
