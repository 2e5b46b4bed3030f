"""The accepting side of a pairing code: finds who offers it and holds the conversation.

At most three candidates are tried for a code that was typed, and none after the first that did
not confirm it: whoever puts up the same slot word gets three looks at nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Final

from p2psync.engine.house import House
from p2psync.engine.network import Network
from p2psync.errors import (
    ChannelClosedError,
    ExitCode,
    RemoteProtocolError,
    UserError,
)
from p2psync.net.pairwire import PairingLink
from p2psync.protocol.machine import Failed
from p2psync.protocol.pairing import (
    Declined,
    Guess,
    Offer,
    PairingAccepter,
    Refusal,
    Refused,
    Verified,
    Welcome,
    WrongCode,
)
from p2psync.protocol.words import Code

logger = logging.getLogger(__name__)

ACCEPT_S: Final = 15.0
DECIDE_S: Final = 600.0
LINGER_S: Final = 4.0
CANDIDATES: Final = 3
NAME_BYTES: Final = 100

NOT_HERE: Final = (
    "No device here offers this code. It may be mistyped, used or expired, or the other device"
    " is on another network. Run `p2psync share` there again and type the new code."
)
WRONG: Final = (
    "The other device did not confirm the code: it was mistyped, or somebody is guessing."
    " Ask for a new one."
)
TOO_OLD: Final = (
    "The two devices run versions of p2psync that do not understand each other. Update the"
    " older one."
)
SILENT: Final = "A device offers this code but did not answer. Is a firewall in between?"


class Met:
    """A device that knows the code, and what it shares; linked while a person decides."""

    def __init__(self, welcome: Welcome, machine: PairingAccepter, link: PairingLink) -> None:
        self.welcome = welcome
        self._machine = machine
        self._link = link

    async def linger(self) -> None:
        """Keep the link alive until cancelled, so that declining can be told."""
        with suppress(ChannelClosedError, RemoteProtocolError):
            while True:
                await asyncio.sleep(LINGER_S)
                self._machine.linger()
                await self._send()
                await self._link.receive()

    async def decline(self) -> None:
        """Tell the other side to undo what it stored, if it can still be told."""
        self._machine.decline()
        with suppress(ChannelClosedError):
            await self._send()

    async def _send(self) -> None:
        for data in self._machine.data_to_send():
            await self._link.send(data)


@asynccontextmanager
async def meeting(
    house: House, network: Network, code: Code, timeout_s: float
) -> AsyncIterator[Met]:
    """Find the device that offers a code and confirm it both ways; the context keeps the link.

    Raises:
        UserError: nobody here offers it (5), it is not this one (5), no answer came (4).
    """
    tried = 0
    async with aclosing(network.look(code.slot, timeout_s)) as links:
        async for link in links:
            tried += 1
            try:
                met = await _confirmed(house, code, link)
                if met is not None:
                    yield met
                    return
            finally:
                with suppress(ChannelClosedError):
                    await link.close()
            if tried == CANDIDATES:
                break
    if tried:
        raise UserError(SILENT, ExitCode.UNREACHABLE)
    raise UserError(NOT_HERE, ExitCode.REFUSED)


async def _confirmed(house: House, code: Code, link: PairingLink) -> Met | None:
    """Run one conversation; None: it broke before anything was confirmed."""
    loop = asyncio.get_running_loop()
    machine = PairingAccepter(
        house.identity,
        code,
        house.name,
        house.instance,
        secrets.token_bytes(32),
        deadline=loop.time() + DECIDE_S,
    )
    try:
        async with asyncio.timeout(ACCEPT_S):
            while True:
                for data in machine.data_to_send():
                    await link.send(data)
                machine.receive_data(await link.receive(), loop.time())
                for event in machine.events():
                    match event:
                        case Offer(welcome):
                            return Met(welcome, machine, link)
                        case WrongCode():
                            raise UserError(WRONG, ExitCode.REFUSED)
                        case Refused(refusal):
                            old = refusal is Refusal.VERSION
                            raise UserError(TOO_OLD if old else NOT_HERE, ExitCode.REFUSED)
                        case Failed(reason):
                            logger.info("pairing over %s: %s", link.address, reason)
                            return None
                        case Guess() | Verified() | Declined():
                            raise AssertionError("only the sharing side is guessed at")
    except (ChannelClosedError, RemoteProtocolError, TimeoutError) as error:
        logger.info("pairing over %s: %s", link.address, error)
        return None


def default_target(folder_name: str, directory: bytes) -> bytes:
    """Return where a folder goes when no path is named: `./name` if the name is a plain one."""
    name = os.fsencode(folder_name)
    plain = (
        0 < len(name) <= NAME_BYTES
        and b"/" not in name
        and not name.startswith(b".")
        and all(character.isprintable() for character in folder_name)
    )
    return os.path.join(directory, name if plain else b"p2psync-folder")


def occupied(target: bytes) -> bool:
    """Say whether something is there that is not an empty directory."""
    try:
        return bool(os.listdir(target))
    except FileNotFoundError:
        return False
    except OSError:
        return True
