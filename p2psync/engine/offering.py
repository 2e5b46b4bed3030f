"""The sharing side of one pairing code: many links, one machine each, one joins (design 5.7).

The machines of `protocol.pairing` decide; here are the clock, the pace of guesses, and what has
to be durable before what: a guess before it is compared, the new member before message 4.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Final

from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine.house import House
from p2psync.engine.replica import Replica
from p2psync.errors import (
    ChannelClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    StoreError,
)
from p2psync.net.pairwire import PairingLink
from p2psync.protocol import limits
from p2psync.protocol.machine import Failed
from p2psync.protocol.pairing import (
    Declined,
    Event,
    Guess,
    Joining,
    Offer,
    PairingSharer,
    Refusal,
    Refused,
    State,
    Verified,
    Welcome,
    WrongCode,
)
from p2psync.protocol.words import Code
from p2psync.store.home import Home

logger = logging.getLogger(__name__)

CODE_S: Final = limits.CODE_LIFE_S
GUESSES: Final = 5
GUESS_PAUSE_S: Final = 2.0
CONVERSATIONS: Final = 16
START_PAUSE_S: Final = 0.1


class Offering:
    """One code put up for one replica; every link of an accepting device comes here."""

    def __init__(self, engine: House, home: Home, replica: Replica, code: Code) -> None:
        loop = asyncio.get_running_loop()
        self.code = code
        self.replica = replica
        self.deadline = loop.time() + CODE_S
        self.joined: asyncio.Future[bytes] = loop.create_future()
        self.burned: asyncio.Future[tuple[str, ...]] = loop.create_future()
        self.declined: asyncio.Future[None] = loop.create_future()
        self._engine = engine
        self._home = home
        self._id = secrets.token_bytes(16)
        self._machines: dict[bytes, PairingSharer] = {}
        self._starting = asyncio.Lock()
        self._guessing = asyncio.Lock()
        self._guessed_at = 0.0
        self._guessers: dict[str, None] = {}
        home.new_code(self._id, time.time_ns() + int(CODE_S * 1e9))

    def withdraw(self) -> None:
        """The code is void from now on."""
        self._home.end_code(self._id)
        for machine in self._machines.values():
            machine.refuse()

    async def serve(self, link: PairingLink) -> None:
        """Hold one link's conversation, from wherever the accepting side is in it."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(self.deadline):
                first = await link.receive()
                machine = await self._machine(first)
                machine.receive_data(first, loop.time())
                while True:
                    await self._happened(machine, link.address)
                    for data in machine.data_to_send():
                        await link.send(data)
                    machine.receive_data(await link.receive(), loop.time())
        except (ChannelClosedError, RemoteProtocolError, TimeoutError) as error:
            logger.debug("pairing with %s ended: %s", link.address, error)
        finally:
            await link.close()

    async def _machine(self, first: bytes) -> PairingSharer:
        """Return the machine of this message 1: the same one over whatever it comes.

        New ones are made at a pace: SPAKE2 costs milliseconds, and whoever wants to wear this
        device out, or to time what depends on the password, gets ten a second.
        """
        async with self._starting:
            machine = self._machines.get(first)
            if machine is None:
                await asyncio.sleep(START_PAUSE_S)
                machine = self._new_machine(first)
            return machine

    def _new_machine(self, first: bytes) -> PairingSharer:
        if len(self._machines) >= CONVERSATIONS:  # who joined may still ask for message 4
            del self._machines[
                next(f for f, m in self._machines.items() if m.state is not State.DONE)
            ]
        seed = secrets.token_bytes(32)
        machine = PairingSharer(self._engine.identity, self.code, seed, deadline=self.deadline)
        self._machines[first] = machine
        return machine

    async def _happened(self, machine: PairingSharer, address: str) -> None:
        pending = machine.events()
        while pending:
            match pending.pop(0):
                case Guess():
                    pending += await self._guess(machine, address)
                case Verified(joining):
                    self._admit(machine, joining)
                case WrongCode():
                    logger.warning("a wrong pairing code came from %s", address)
                case Failed(reason):
                    raise RemoteProtocolError(reason)
                case Declined():
                    self._undo()
                case Offer() | Refused():
                    raise AssertionError("only the accepting side is answered like this")

    async def _guess(self, machine: PairingSharer, address: str) -> list[Event]:
        """Count first, compare then; at most one guess in two seconds, five for a code."""
        async with self._guessing:
            pause = self._guessed_at + GUESS_PAUSE_S - time.monotonic()
            if self._guessed_at and pause > 0:
                await asyncio.sleep(pause)
            if self.burned.done() or self.joined.done():
                machine.refuse()
                return []
            self._guessed_at = time.monotonic()
            self._guessers[_host(address)] = None
            try:
                count = self._home.count_guess(self._id)
            except LookupError:  # withdrawn or burned a moment ago
                machine.refuse()
                return []
            machine.verify_guess()
            result = machine.events()
            if count >= GUESSES and not any(isinstance(e, Verified) for e in result):
                self._home.burn_code(self._id)
                self.burned.set_result(tuple(self._guessers))
            return result

    def _admit(self, machine: PairingSharer, joining: Joining) -> None:
        """Store the new member, then welcome it; the code is used."""
        if self.joined.done() or self.burned.done():
            machine.refuse(Refusal.GONE)
            return
        membership, folder = self._engine.membership, self.replica.record.folder
        device = DeviceId(joining.device)
        try:
            membership.invite(folder, device, joining.key, joining.name)
            machine.accept(self._welcome(folder, device))
        except (StoreError, LocalProtocolError) as error:
            logger.error("cannot take the new device in: %s", error)
            machine.refuse()
            return
        self.joined.set_result(bytes(device))

    def _undo(self) -> None:
        """The person at the other end declined: the device is a member no more."""
        device = DeviceId(self.joined.result())
        self._engine.membership.revoke(self.replica.record.folder, device)
        if not self.declined.done():
            self.declined.set_result(None)

    def _welcome(self, folder: FolderId, device: DeviceId) -> Welcome:
        engine, record = self._engine, self.replica.record
        files, size, complete = self.replica.survey.counted
        return Welcome(
            bytes(engine.identity.device),
            engine.identity.key,
            engine.name,
            engine.instance,
            bytes(folder),
            record.name,
            "rw",
            files,
            size,
            complete,
            bytes(engine.membership.founder(folder)),
            engine.membership.invitation(folder, device),
        )


def _host(address: str) -> str:
    """Return a link's address without the port, which tells a person nothing."""
    return address.rpartition(":")[0] or address
