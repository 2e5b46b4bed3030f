"""Both sides of pairing for one engine: codes put up here, codes typed here (design 5.7)."""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from p2psync.core import paths
from p2psync.core.ids import DeviceId, FolderId
from p2psync.engine import events
from p2psync.engine.accepting import default_target, meeting, occupied
from p2psync.engine.house import House
from p2psync.engine.network import Network
from p2psync.engine.offering import CODE_S, Offering
from p2psync.engine.replica import Replica
from p2psync.errors import ExitCode, RemoteProtocolError, UserError
from p2psync.protocol.words import WORDS_LISTED, make_code, parse
from p2psync.store.home import Home

CODES: Final = 3
CONNECT_S: Final = 30.0
LOOK_S: Final = 0.1

BURNED: Final = (
    "Three codes were guessed wrongly and are void. Somebody on this network is trying codes,"
    " or they were mistyped. Wait a while, then share again."
)
EXPIRED: Final = "The code expired unused. The folder stays ready; share again for a new code."
DECLINED: Final = "The other device declined the folder. Share again for a new code."
NOT_MET: Final = "The other device joined but no connection to it came about."
NOT_REACHED: Final = (
    "The code was right, but no connection to the other device came about. It is tried again"
    " in the background; `p2psync status` shows when it works."
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

    def withdraw(self, replica: Replica) -> None:
        """The replica is left: a code for it is void."""
        for slot, offering in list(self._offerings.items()):
            if offering.replica.record == replica.record:
                offering.withdraw()
                del self._offerings[slot]

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
        raise UserError(BURNED, ExitCode.REFUSED)

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
            raise UserError(EXPIRED, ExitCode.TIMEOUT)

    async def _met(self, offering: Offering, key: bytes) -> events.Paired:
        """Wait until the device has the folder on an ordinary channel: only then "paired".

        A peer of another folder is connected already while its person is still being asked.
        """
        if offering.declined.done():  # and is no peer any more: that would look like a twin
            raise UserError(DECLINED, ExitCode.REFUSED)
        if key not in self._device_keys():
            return events.Paired(self._engine.identity.device, self._engine.name)
        device = DeviceId(key)
        try:
            async with asyncio.timeout_at(offering.deadline):
                while (name := self._engine.connected(device)) is None or not (
                    _attached(offering.replica, key)
                ):
                    if offering.declined.done():
                        raise UserError(DECLINED, ExitCode.REFUSED)
                    await self._engine.changed.wait(LOOK_S)
        except TimeoutError:
            raise UserError(NOT_MET, ExitCode.UNREACHABLE) from None
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
        if path is not None:
            self._check_named(path)
        local = self._offerings.get(code.slot)
        if local is not None and hmac.compare_digest(local.code.password, code.password):
            async for event in self._accept_here(local, path, directory, confirm):
                yield event
            return
        async with meeting(self._engine, self._network, code, timeout_s) as met:
            welcome = met.welcome
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
            lingering = asyncio.create_task(met.linger())
            try:
                yield offer
                target = await self._target(offer, path, directory, confirm)
            except BaseException:  # who hangs up instead of an answer declines as well
                await met.decline()
                raise
            finally:
                lingering.cancel()
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

    def _check_named(self, path: bytes) -> None:
        """Refuse what was named, while the code is not used up yet."""
        if os.path.lexists(path):
            self._engine.check_root(path)
        else:
            self._engine.check_place(path)

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
        self._engine.check_place(target, offer.folder)
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

    async def _reached(self, device: DeviceId) -> events.Paired:
        try:
            async with asyncio.timeout(CONNECT_S):
                while (name := self._engine.connected(device)) is None:
                    await self._engine.changed.wait(LOOK_S)
        except TimeoutError:
            raise UserError(NOT_REACHED, ExitCode.UNREACHABLE) from None
        return events.Paired(device, name)


def _attached(replica: Replica, key: bytes) -> bool:
    """Say whether this peer syncs the replica's folder over a conversation."""
    return any(
        link.conversation.key == key and link.exchange.told.known is not None
        for link in replica.links
    )
