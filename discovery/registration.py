"""One announced service: what it says now, and how that is changed or taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from zeroconf import ServiceInfo
from zeroconf.asyncio import AsyncServiceInfo

RECORD_TTL_S: Final = 4_500  # RFC 6762 10
HOST_TTL_S: Final = 120


class Fresh(NamedTuple):
    """A name and the data of a record that takes the place of an earlier one."""

    name: str
    txt: Mapping[bytes, bytes]


class Registration:
    """What `Lan.announce` returns; take it back with `withdraw`."""

    def __init__(
        self,
        info: ServiceInfo,
        fresh: Callable[[], Fresh] | None,
        replace: Callable[[Registration, ServiceInfo, bool], Awaitable[None]],
        withdraw: Callable[[Registration], Awaitable[None]],
    ) -> None:
        self.info = info
        self.sent = 0.0
        """When it was last announced, on the monotonic clock."""
        self.sending: asyncio.Future[Any] | None = None
        self.renewing: asyncio.Future[Any] | None = None
        self._fresh = fresh
        self._replace = replace
        self._withdraw = withdraw

    @property
    def name(self) -> str:
        """The instance name now."""
        return self.info.name[: -len(base_of(self.info.type)) - 1]

    async def update(
        self, *, txt: Mapping[bytes, bytes] | None = None, port: int | None = None
    ) -> None:
        """Change the data or the port and announce it."""
        old = self.info
        text: Mapping[bytes, bytes | None] = old.properties if txt is None else txt
        info = service_info(old.type, old.name, port or old.port or 0, text, old.other_ttl)
        await self._replace(self, info, False)

    async def renew(self) -> None:
        """Take a new name and data from the function given to `announce`, if there is one.

        The old name says goodbye.
        """
        if self._fresh is not None:
            await self._replace(self, self.renewed(), True)

    def renewed(self) -> ServiceInfo:
        """Return the record with a fresh name and data; the same where none was asked for."""
        old = self.info
        if self._fresh is None:
            return old
        fresh = self._fresh()
        name = f"{fresh.name}.{base_of(old.type)}"
        return service_info(old.type, name, old.port or 0, fresh.txt, old.other_ttl)

    async def withdraw(self) -> None:
        """Say goodbye; returns when it is really sent (a quarter of a second). Idempotent."""
        await self._withdraw(self)

    def hush(self) -> None:
        """Stop repeating the announcement: it must not follow the goodbye it contradicts."""
        if self.sending is not None:
            self.sending.cancel()


def base_of(full_type: str) -> str:
    """Return the service type of a subtype, which is what instances are named under."""
    return full_type.split("._sub.")[-1]


def service_info(
    full_type: str, full_name: str, port: int, txt: Mapping[bytes, bytes | None], ttl_s: int
) -> ServiceInfo:
    """Return what zeroconf announces; the addresses come later."""
    return AsyncServiceInfo(
        full_type,
        full_name,
        port=port,
        properties=dict(txt),
        # the default server name is the instance's own: no host name is told
        host_ttl=min(ttl_s, HOST_TTL_S),
        other_ttl=ttl_s,
    )
