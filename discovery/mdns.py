"""The local network by multicast DNS: announce services, browse for them, on every interface.

    async with Lan() as lan:
        mine = await lan.announce("_http._tcp", "my page", 8080, {b"path": b"/"})
        async with aclosing(lan.browse("_http._tcp")) as found:
            async for event in found: ...

One `Lan` serves a whole process. It speaks on every usable interface, IPv4 and IPv6, the
loopback included, and follows them as they come and go. It shares port 5353 with other
processes and with an avahi-daemon. Names are expected to be unique (random): they are not
probed for, which saves 1.2 seconds.

Where nothing can be done (no interface, the port owned by a program that does not share it)
nothing raises: `problem` says why, announcements and browses wait, and it is tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final

from zeroconf import ServiceInfo, Zeroconf
from zeroconf._dns import DNSPointer, DNSRecord
from zeroconf.asyncio import AsyncZeroconf

from discovery.asker import Asker
from discovery.browser import TRACKED, Browser
from discovery.guard import Guard
from discovery.interfaces import (
    POLL_S,
    Interface,
    addresses_of,
    changes,
    sockets_for,
)
from discovery.records import ADDRESSES
from discovery.registration import RECORD_TTL_S, Fresh, Registration, base_of, service_info

log = logging.getLogger(__name__)

ANNOUNCED: Final = 4_096
RENEW_S: Final = 6 * 3600.0
GREET_WITHIN_S: Final = 2.0
CLOSE_S: Final = 3.0


class Lan:
    """The process's one door to multicast DNS."""

    def __init__(self) -> None:
        self.interfaces: tuple[Interface, ...] = ()
        """Those in use now."""
        self.problem: str | None = "not started"
        """Why nobody can be met on the local network now, for people; None while it works."""
        self._async_zeroconf: AsyncZeroconf | None = None
        self._registrations: list[Registration] = []
        self._browsers: list[Browser] = []
        self._askers: dict[str, Asker] = {}
        self._observers: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Future[Any]] = set()
        self._trying: asyncio.Future[Any] | None = None
        self._refreshing = asyncio.Lock()

    # its life

    async def __aenter__(self) -> Lan:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the sockets and follow the interfaces; returns when both are so."""
        ready = asyncio.Event()
        self._spawn(self._follow(ready))
        await ready.wait()

    async def stop(self) -> None:
        """Say goodbye for everything announced, end every browse, close. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for browser in list(self._browsers):
            await browser.aclose()
        self._registrations.clear()
        opened, self._async_zeroconf = self._async_zeroconf, None
        self.problem = "stopped"
        if opened is not None:
            try:
                async with asyncio.timeout(CLOSE_S):
                    await opened.async_close()  # sends the goodbyes
            except TimeoutError:
                log.warning("multicast DNS did not close within %s s", CLOSE_S)

    def on_change(self, observer: Callable[[], None]) -> None:
        """Call it after every change of the interfaces, when the new ones are in use."""
        self._observers.append(observer)

    # announcing

    async def announce(
        self,
        service_type: str,
        name: str,
        port: int,
        txt: Mapping[bytes, bytes],
        *,
        ttl_s: int = RECORD_TTL_S,
        renew: Callable[[], Fresh] | None = None,
        renew_s: float = RENEW_S,
    ) -> Registration:
        """Announce a service on every interface; returns when the first packet is sent.

        Args:
            service_type: "_http._tcp", or with a subtype "_printer._sub._http._tcp".
            name: the instance, unique on the network; at most 63 bytes.
            port: 1 to 65535.
            txt: each key and value together at most 254 bytes.
            ttl_s: how long others keep the record without hearing of it.
            renew: gives a fresh name and data when the interfaces change, so that the same
                record is never seen on two networks.
            renew_s: with `renew`, also after so long.

        Raises:
            ValueError: too many announcements.
        """
        if len(self._registrations) >= ANNOUNCED:
            raise ValueError(f"more than {ANNOUNCED} announcements")
        full = f"{service_type}.local."
        base = base_of(full)
        info = service_info(full, f"{name}.{base}", port, txt, ttl_s)
        registration = Registration(info, renew, self._replace, self._withdraw)
        self._registrations.append(registration)
        await self._register(registration)
        if renew is not None:
            registration.renewing = self._spawn(_renewing(registration, renew_s))
        return registration

    async def _register(self, registration: Registration) -> None:
        """Announce it, three times within half a second; returns after the first."""
        if self._async_zeroconf is None:
            return
        opened, info = self._async_zeroconf, registration.info
        registration.hush()
        info.addresses = addresses_of(self.interfaces, ADDRESSES)
        registration.sent = time.monotonic()
        if opened.zeroconf.registry.async_get_info_name(info.key) is None:
            sending = await opened.async_register_service(info, cooperating_responders=True)
        else:
            sending = await opened.async_update_service(info)
        registration.sending = self._own(asyncio.ensure_future(sending))

    async def _replace(
        self, registration: Registration, info: ServiceInfo, goodbye: bool
    ) -> None:
        """Announce info in place of what the registration had."""
        registration.hush()
        old, registration.info = registration.info, info
        if self._async_zeroconf is None or registration not in self._registrations:
            return
        if goodbye:
            self._spawn(self._unregister(self._async_zeroconf, old))
        else:
            self._async_zeroconf.zeroconf.registry.async_remove(old)
        await self._register(registration)

    async def _withdraw(self, registration: Registration) -> None:
        if registration not in self._registrations:
            return
        self._registrations.remove(registration)
        registration.hush()
        if registration.renewing is not None:
            registration.renewing.cancel()
        if self._async_zeroconf is not None:
            await self._unregister(self._async_zeroconf, registration.info)

    @staticmethod
    async def _unregister(opened: AsyncZeroconf, info: ServiceInfo) -> None:
        # the call returns what sends: awaited only once, no goodbye leaves
        await (await opened.async_unregister_service(info))

    # browsing

    def browse(
        self,
        service_type: str,
        *,
        own: bool = False,
        tracked: int = TRACKED,
        accepts: Callable[[str], bool] = lambda name: True,
    ) -> Browser:
        """Look for instances of a type, from now on and whatever interfaces come.

        Args:
            service_type: as in `announce`.
            own: also tell what this process announces.
            tracked: how many names are kept at most.
            accepts: whether an instance name is of interest; others cost nothing.
        """
        full = f"{service_type}.local."
        ends = len(base_of(full)) + 1

        def ignores(name: str) -> bool:
            return not accepts(name[:-ends]) or (not own and self._is_own(name))

        browser = Browser(full, tracked=tracked, ignores=ignores, closed=self._closed)
        self._browsers.append(browser)
        asker = self._askers.get(full)
        if asker is None:
            asker = self._askers[full] = Asker(full, lambda: self._browsing(full))
        if self._async_zeroconf is not None:
            browser.attach(self._async_zeroconf.zeroconf)
            asker.attach(self._async_zeroconf.zeroconf)
        return browser

    def _closed(self, browser: Browser) -> None:
        self._browsers.remove(browser)
        if not self._browsing(browser.type):
            self._askers.pop(browser.type).detach()

    def _browsing(self, full_type: str) -> list[Browser]:
        return [browser for browser in self._browsers if browser.type == full_type]

    def _is_own(self, name: str) -> bool:
        opened = self._async_zeroconf
        if opened is None:
            return False
        return opened.zeroconf.registry.async_get_info_name(name.lower()) is not None

    def ask(self) -> None:
        """Ask the network at once for all that is browsed: a packet may have been lost."""
        for asker in self._askers.values():
            asker.ask()

    # following the interfaces

    async def refresh(self) -> None:
        """Announce and ask again on every interface now; needed by nobody, harmless always."""
        await self._use(self.interfaces)

    async def _follow(self, ready: asyncio.Event) -> None:
        try:
            async for interfaces in changes():
                log.debug("interfaces: %s", interfaces)
                try:
                    await self._use(interfaces)
                except OSError as error:
                    self.problem = f"multicast DNS does not work here: {error}"
                    log.warning("%s", self.problem)
                    self._try_again_soon()
                ready.set()
        finally:
            ready.set()  # whatever went wrong is logged: nobody waits for it

    def _try_again_soon(self) -> None:
        if self._trying is None or self._trying.done():
            self._trying = self._spawn(self._try_again())

    async def _try_again(self) -> None:
        """Open the port until it works: whoever owned it may have gone."""
        while self._async_zeroconf is None:
            await asyncio.sleep(POLL_S)
            try:
                await self._use(self.interfaces)
            except OSError as error:
                log.debug("still no multicast DNS: %s", error)

    async def _use(self, interfaces: tuple[Interface, ...]) -> None:
        """Speak on these interfaces from now on.

        Raises:
            OSError: port 5353 cannot be opened.
        """
        async with self._refreshing:
            changed, self.interfaces = self.interfaces != interfaces, interfaces
            if self._async_zeroconf is None:
                await self._open()
            elif changed:
                self._renew_all(self._async_zeroconf.zeroconf)
            opened = self._async_zeroconf
            if opened is None:
                raise AssertionError("opening either works or raises")
            for registration in self._registrations:  # it may be announced while reconciling
                registration.info.addresses = addresses_of(interfaces, ADDRESSES)
            self.problem = None if interfaces else "no network interface can multicast"
            await self._reconcile(opened, interfaces)
            for registration in list(self._registrations):
                await self._register(registration)
            self.ask()
        if changed:
            for observer in self._observers:
                observer()

    async def _open(self) -> None:
        opened = AsyncZeroconf(interfaces=[])
        try:
            await opened.zeroconf.async_wait_for_start()
        except BaseException:
            await opened.async_close()
            raise
        opened.zeroconf.async_add_listener(Guard(self._wants, self._greet), None)
        self._async_zeroconf = opened
        for browser in self._browsers:
            browser.attach(opened.zeroconf)
        for asker in self._askers.values():
            asker.attach(opened.zeroconf)

    def _renew_all(self, zeroconf: Zeroconf) -> None:
        """Give fresh records to those who want them; the old ones say goodbye first."""
        for registration in self._registrations:
            old, new = registration.info, registration.renewed()
            if new is not old:
                zeroconf.async_send(zeroconf.generate_service_broadcast(old, 0))
                zeroconf.registry.async_remove(old)
                registration.info = new

    @staticmethod
    async def _reconcile(opened: AsyncZeroconf, interfaces: tuple[Interface, ...]) -> None:
        """Open and close sockets; one interface in trouble leaves the others working."""
        wanted = sockets_for(interfaces)
        try:
            await opened.async_update_interfaces(wanted)
        except (OSError, RuntimeError) as error:
            log.debug("one interface at a time: %s", error)
        else:
            return
        working: list[str | int] = []
        for one in wanted:
            try:
                await opened.async_update_interfaces([*working, one])
            except (OSError, RuntimeError) as error:
                log.warning("no multicast DNS on %s: %s", one, error)
            else:
                working.append(one)

    # what others say

    def _greet(self, pointer: DNSPointer) -> None:
        """Announce once more to a newcomer who may have started too late to hear it.

        A question about what was sent within the last second is answered a second late
        (RFC 6762 6); this way two that start together know each other at once.
        """
        now = time.monotonic()
        opened = self._async_zeroconf
        if opened is None or self._is_own(pointer.alias):
            return
        for registration in self._registrations:
            young = 0.1 < now - registration.sent < GREET_WITHIN_S
            if young and registration.info.type.lower() == pointer.key:
                registration.sent = now - GREET_WITHIN_S  # once
                packet = opened.zeroconf.generate_service_broadcast(registration.info, None)
                opened.zeroconf.async_send(packet)

    def _wants(self, record: DNSRecord) -> bool:
        return any(browser.wants(record) for browser in self._browsers)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[Any]:
        return self._own(asyncio.get_running_loop().create_task(work))

    def _own(self, task: asyncio.Future[Any]) -> asyncio.Future[Any]:
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("discovery failed", exc_info=task.exception())


async def _renewing(registration: Registration, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await registration.renew()
