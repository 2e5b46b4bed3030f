"""Runs a machine of the protocol over a channel: its messages, its events, its deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from p2psync.net.channel import Channel
from p2psync.protocol.machine import Machine

EventT = TypeVar("EventT")


async def drive(channel: Channel, machine: Machine[EventT]) -> AsyncGenerator[EventT, None]:
    """Yield what happens, each event after the messages that belong to it are sent.

    Goes on until the caller stops asking. The machine's clock is the loop's. Between two
    events the caller may call the machine; what it then wants to send goes out first.

    Raises:
        ChannelClosedError, RemoteProtocolError: as `Channel.send` and `Channel.receive` do.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout_at(machine.next_deadline()) as limit:
                for message in machine.data_to_send():
                    await channel.send(message)
                if not (events := machine.events()):
                    machine.receive_data(await channel.receive(), loop.time())
        except TimeoutError:
            if not limit.expired():
                raise
            machine.handle_deadline(loop.time())
            continue
        for event in events:
            yield event
