"""Making two devices peers: putting up codes, and accepting them (design 5.7).

The machines of `protocol.pairing` decide; here are the clocks, the links, and what has to be
durable before what: a guess before it is compared, the new member before message 4.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import replace
from typing import Any, Final, Protocol

from p2psync.core import paths
from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine import events
from p2psync.engine.membership import Membership
from p2psync.engine.network import Network
from p2psync.engine.replica import Replica
from p2psync.engine.signal import Bell
from p2psync.errors import (
    ChannelClosedError,
    ExitCode,
    LocalProtocolError,
    RemoteProtocolError,
    StoreError,
    UserError,
)
from p2psync.identity.keys import Identity
from p2psync.net.pairwire import PairingLink
from p2psync.protocol import limits
from p2psync.protocol.machine import Failed
from p2psync.protocol.pairing import (
    Event,
    Guess,
    Joining,
    Offer,
    PairingAccepter,
    PairingSharer,
    Refusal,
    Verified,
    Welcome,
    WrongCode,
)
from p2psync.protocol.words import WORDS_LISTED, Code, make_code, parse
from p2psync.store.home import Home

logger = logging.getLogger(__name__)

CODE_S: Final = limits.CODE_LIFE_S
CODES: Final = 3
GUESSES: Final = 5
GUESS_PAUSE_S: Final = 2.0
CONVERSATIONS: Final = 16
CONNECT_S: Final = 30.0
ACCEPT_S: Final = 15.0
CANDIDATES: Final = 3

NOT_HERE: Final = (
    "No device here offers this code. It may be mistyped, used or expired, or the other device"
    " is on another network. Run `p2psync share` there again and type the new code."
)
WRONG: Final = (
    "The other device did not confirm the code: it was mistyped, or somebody is guessing."
    " Ask for a new one."
)


class House(Protocol):
    """What pairing needs of the engine."""

    identity: Identity
    name: str
    instance: bytes
    membership: Membership
    changed: Bell

    def replica_of(self, folder: FolderId, root: bytes) -> Replica:
        """Return the replica of a folder at a root; a new one if there is none yet."""
        ...

    def key_of(self, replica: Replica) -> bytes:
        """Return the peer key under which a twin knows a replica of this device."""
        ...

    def check_root(self, path: bytes) -> bytes:
        """Return the path without symlinks; raise UserError if it must not be shared."""
        ...

    def connected(self, device: DeviceId) -> str | None:
        """Return the name a connected peer gave itself; None: not connected."""
        ...


class Offering:
    """One code put up for one replica; every link of an accepting device comes here."""

    def __init__(self, engine: House, home: Home, replica: Replica, code: Code) -> None:
        loop = asyncio.get_running_loop()
        self.code = code
        self.replica = replica
        self.deadline = loop.time() + CODE_S
        self.joined: asyncio.Future[bytes] = loop.create_future()
        self.burned: asyncio.Future[tuple[str, ...]] = loop.create_future()
        self._engine = engine
        self._home = home
        self._id = secrets.token_bytes(16)
        self._machines: dict[bytes, PairingSharer] = {}
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
                machine = self._machine(first)
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

    def _machine(self, first: bytes) -> PairingSharer:
        """Return the machine of this message 1: the same one over whatever it comes."""
        machine = self._machines.get(first)
        if machine is None:
            if len(self._machines) >= CONVERSATIONS:
                del self._machines[next(iter(self._machines))]
            seed = secrets.token_bytes(32)
            machine = PairingSharer(
                self._engine.identity, self.code, seed, deadline=self.deadline
            )
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
                case Offer():
                    raise AssertionError("only the accepting side is offered something")

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
            self._guessers[address] = None
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


class Pairing:
    """Both sides of pairing, for one engine."""

    def __init__(self, engine: House, network: Network, home: Home) -> None:
        self._engine = engine
        self._network = network
        self._home = home
        self._offerings: dict[str, Offering] = {}

    async def close(self) -> None:
        """Withdraw every code."""
        for offering in list(self._offerings.values()):
            offering.withdraw()

    # ------------------------------------------------------------------ sharing

    async def offer(self, replica: Replica) -> AsyncGenerator[events.Event | bytes, None]:
        """Put up codes until a device has joined; the last thing yielded is its peer key.

        Raises:
            UserError: three codes were burned (5), or one expired unused (6).
        """
        for _ in range(CODES):
            code = make_code(
                [secrets.randbelow(WORDS_LISTED) for _ in range(4)],
                self._network.slots.seen_slots() | set(self._offerings),
            )
            offering = Offering(self._engine, self._home, replica, code)
            self._offerings[code.slot] = offering
            try:
                async with AsyncExitStack() as stack:
                    await self._network.put_up(stack, code.slot, offering.serve)
                    yield events.CodeReady(str(code), int(CODE_S))
                    async for event in self._outcome(offering):
                        yield event
                        if isinstance(event, bytes):
                            return
            finally:
                offering.withdraw()
                self._offerings.pop(code.slot, None)
        raise UserError(
            "Three codes were guessed wrongly and are void. Somebody on this network is trying"
            " codes, or they were mistyped. Wait a while, then share again.",
            ExitCode.REFUSED,
        )

    async def _outcome(self, offering: Offering) -> AsyncGenerator[events.Event | bytes, None]:
        waiting: set[asyncio.Future[Any]] = {offering.joined, offering.burned}
        left = offering.deadline - asyncio.get_running_loop().time()
        await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if offering.joined.done():
            key = offering.joined.result()
            yield await self._met(offering, key)
            yield key
        elif offering.burned.done():
            yield events.Burned(offering.burned.result())
        else:
            raise UserError(
                "The code expired unused. The folder stays ready; share again for a new code.",
                ExitCode.TIMEOUT,
            )

    async def _met(self, offering: Offering, key: bytes) -> events.Paired:
        """Wait for the first hello on an ordinary channel: only then it is "paired"."""
        if key not in self._device_keys():
            return events.Paired(self._engine.identity.device, self._engine.name)
        device = DeviceId(key)
        try:
            async with asyncio.timeout_at(offering.deadline):
                while (name := self._engine.connected(device)) is None:
                    await self._engine.changed.wait(1.0)
        except TimeoutError:
            raise UserError(
                "The other device joined but no connection to it came about.",
                ExitCode.UNREACHABLE,
            ) from None
        return events.Paired(device, name)

    def _device_keys(self) -> set[bytes]:
        return {bytes(device) for device in self._engine.membership.peers()}

    # ------------------------------------------------------------------ accepting

    async def accept(
        self,
        text: str,
        path: bytes | None,
        directory: bytes,
        timeout_s: float,
        confirm: Callable[[events.Offer], Awaitable[bool]],
    ) -> AsyncGenerator[events.Event | tuple[Replica, bytes], None]:
        """Join with a code; the last thing yielded is the replica and the peer's key.

        Raises:
            UserError: as `Engine.accept`.
        """
        try:
            code = parse(text)
        except ValueError as error:
            raise UserError(str(error)) from error
        local = self._offerings.get(code.slot)
        if local is not None and hmac.compare_digest(local.code.password, code.password):
            async for event in self._accept_here(local, path, directory, confirm):
                yield event
            return
        welcome = await self._welcomed(code, timeout_s)
        device, folder = DeviceId(welcome.device), FolderId(welcome.folder)
        offer = events.Offer(
            device,
            welcome.name,
            folder,
            welcome.folder_name,
            welcome.files,
            welcome.bytes,
            welcome.complete,
        )
        yield offer
        target = await self._target(offer, path, directory, confirm)
        try:
            self._engine.membership.join(folder, welcome.members, DeviceId(welcome.founder))
        except RemoteProtocolError as error:
            raise UserError(f"The other device sent {error}.", ExitCode.REFUSED) from error
        replica = self._engine.replica_of(folder, target)
        yield await self._reached(device)
        yield replica, bytes(device)

    async def _accept_here(
        self,
        offering: Offering,
        path: bytes | None,
        directory: bytes,
        confirm: Callable[[events.Offer], Awaitable[bool]],
    ) -> AsyncGenerator[events.Event | tuple[Replica, bytes], None]:
        """The code was put up by this very agent: join two folders of this device."""
        engine, record = self._engine, offering.replica.record
        device = engine.identity.device
        offer = events.Offer(
            device, engine.name, record.folder, record.name, *offering.replica.survey.counted
        )
        yield offer
        target = await self._target(offer, path, directory, confirm)
        replica = engine.replica_of(record.folder, target)
        if not offering.joined.done():
            offering.joined.set_result(engine.key_of(replica))
        yield events.Paired(device, engine.name)
        yield replica, engine.key_of(offering.replica)

    async def _target(
        self,
        offer: events.Offer,
        path: bytes | None,
        directory: bytes,
        confirm: Callable[[events.Offer], Awaitable[bool]],
    ) -> bytes:
        """Ask, and make the directory where the folder shall be.

        Raises:
            UserError: declined, or the directory cannot be used.
        """
        target = path if path is not None else default_target(offer.folder_name, directory)
        shown = paths.printable(target)
        taken = path is None and occupied(target)
        if not await confirm(replace(offer, target=target, occupied=taken)):
            if taken:
                raise UserError(f"{shown} exists and is not empty. Name the directory to use.")
            raise UserError("Declined; nothing was changed here.", ExitCode.REFUSED)
        try:
            os.makedirs(target, exist_ok=True)
        except OSError as error:
            raise UserError(f"{shown} cannot be made: {error.strerror}.") from error
        return self._engine.check_root(target)

    async def _welcomed(self, code: Code, timeout_s: float) -> Welcome:
        """Find who offers the code and run the machine with at most three candidates."""
        tried = 0
        async with aclosing(self._network.look(code.slot, timeout_s)) as links:
            async for link in links:
                tried += 1
                welcome = await self._converse(code, link)
                if welcome is not None:
                    return welcome
                if tried == CANDIDATES:
                    break
        if tried:
            raise UserError(
                "A device offers this code but did not answer. Is a firewall in between?",
                ExitCode.UNREACHABLE,
            )
        raise UserError(NOT_HERE, ExitCode.REFUSED)

    async def _converse(self, code: Code, link: PairingLink) -> Welcome | None:
        """Run one conversation; None: it broke before anything was confirmed."""
        engine, loop = self._engine, asyncio.get_running_loop()
        machine = PairingAccepter(
            engine.identity,
            code,
            engine.name,
            engine.instance,
            secrets.token_bytes(32),
            deadline=loop.time() + ACCEPT_S,
        )
        try:
            async with asyncio.timeout(ACCEPT_S):
                while True:
                    for event in machine.events():
                        match event:
                            case Offer(welcome):
                                return welcome
                            case WrongCode():
                                raise UserError(WRONG, ExitCode.REFUSED)
                            case Failed(reason):
                                logger.info("pairing over %s: %s", link.address, reason)
                                return None
                            case Guess() | Verified():
                                raise AssertionError("only the sharing side is guessed at")
                    for data in machine.data_to_send():
                        await link.send(data)
                    machine.receive_data(await link.receive(), loop.time())
        except (ChannelClosedError, RemoteProtocolError, TimeoutError) as error:
            logger.info("pairing over %s: %s", link.address, error)
            return None
        finally:
            with suppress(ChannelClosedError):
                await link.close()

    async def _reached(self, device: DeviceId) -> events.Paired:
        try:
            async with asyncio.timeout(CONNECT_S):
                while (name := self._engine.connected(device)) is None:
                    await self._engine.changed.wait(1.0)
        except TimeoutError:
            raise UserError(
                "The code was right, but no connection to the other device came about. It is"
                " tried again in the background; `p2psync status` shows when it works.",
                ExitCode.UNREACHABLE,
            ) from None
        return events.Paired(device, name)


def default_target(folder_name: str, directory: bytes) -> bytes:
    """Return where a folder goes when no path is named: `./name` if the name is a plain one."""
    name = os.fsencode(folder_name)
    plain = (
        0 < len(name) <= 100
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
