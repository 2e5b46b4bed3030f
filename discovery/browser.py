"""One browse of one service type: keeps a bounded view and tells its changes.

zeroconf's own ServiceBrowser is not used: it keeps a refresh timer for every name anybody
announces, for 75 minutes (a flood grows it without bound), and calls back for names of which
nothing but the name is known. This one tracks at most so many names; the newest displaces the
longest unheard, so that a flood cannot keep a real newcomer out.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from zeroconf import RecordUpdate, RecordUpdateListener, Zeroconf
from zeroconf._dns import (
    DNSAddress,
    DNSPointer,
    DNSQuestion,
    DNSRecord,
    DNSService,
    DNSText,
)
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.asyncio import AsyncServiceInfo
from zeroconf.const import (
    _CLASS_IN,
    _FLAGS_QR_QUERY,
    _TYPE_A,
    _TYPE_AAAA,
    _TYPE_PTR,
    _TYPE_SRV,
    _TYPE_TXT,
)

from discovery.records import Found, Lost, ordered
from discovery.registration import base_of

TRACKED: Final = 256
NAME_BYTES: Final = 255
MISSING: Final = 16  # names whose details one packet asks for
MISSING_WAIT_S: Final = 0.1


class Browser(RecordUpdateListener):
    """An endless `AsyncIterator[Found | Lost]`; close it with `aclose` (contextlib.aclosing).

    What is not taken is kept per name, the latest only, so a slow reader misses states but
    never the last one.
    """

    def __init__(
        self,
        service_type: str,
        *,
        tracked: int,
        ignores: Callable[[str], bool],
        closed: Callable[[Browser], None],
    ) -> None:
        """Prepare to browse; `Lan.browse` does it.

        Args:
            service_type: fully qualified, "_x._udp.local." or with a subtype.
            tracked: names kept at most.
            ignores: whether a full name is left out (one's own).
            closed: called once at the end.
        """
        super().__init__()
        self.type = service_type
        self._suffix = "." + base_of(service_type)
        self._tracked = tracked
        self._ignores = ignores
        self._when_closed = closed
        self._names: OrderedDict[str, Found | None] = OrderedDict()
        self._touched: set[str] = set()
        self._gone: set[str] = set()
        self._missing: set[str] = set()
        self._events: OrderedDict[str, Found | Lost] = OrderedDict()
        self._wake = asyncio.Event()
        self._zeroconf: Zeroconf | None = None
        self._missing_timer: asyncio.TimerHandle | None = None
        self._open = True

    # what the reader sees

    def __aiter__(self) -> Browser:
        return self

    async def __anext__(self) -> Found | Lost:
        """Wait for the next change; the end comes only with `aclose` or the end of the Lan."""
        while self._open and not self._events:
            self._wake.clear()
            await self._wake.wait()
        if not self._open:
            raise StopAsyncIteration
        return self._events.popitem(last=False)[1]

    async def aclose(self) -> None:
        """Stop browsing; a waiting reader sees the end. Idempotent."""
        if self._open:
            self._open = False
            self._wake.set()
            self.detach()
            self._when_closed(self)

    def repeat(self) -> None:
        """Tell everything known once more, as if just found."""
        for found in self._names.values():
            if found is not None:
                self._tell(found)

    # what the Lan does

    def attach(self, zeroconf: Zeroconf) -> None:
        """Begin to listen."""
        self._zeroconf = zeroconf
        zeroconf.async_add_listener(self, [DNSQuestion(self.type, _TYPE_PTR, _CLASS_IN)])

    def detach(self) -> None:
        """Stop listening and asking; what is known stays known."""
        if self._missing_timer is not None:
            self._missing_timer.cancel()
            self._missing_timer = None
        if self._zeroconf is not None:
            self._zeroconf.async_remove_listener(self)
            self._zeroconf = None

    def wants(self, record: DNSRecord) -> bool:
        """Return whether the record belongs to a name that is tracked here."""
        if isinstance(record, DNSPointer):
            return record.alias in self._names
        return record.name in self._names

    # what zeroconf calls

    def async_update_records(
        self, zc: Zeroconf, now: float, records: list[RecordUpdate]
    ) -> None:
        """Note which names a packet is about; its records are not in the cache yet."""
        for update in records:
            self._note(zc, now, update.new, known=update.old is not None)

    def _note(self, zc: Zeroconf, now: float, record: DNSRecord, *, known: bool) -> None:
        if isinstance(record, DNSPointer):
            if record.key == self.type.lower():
                self._note_pointer(record, now)
        elif isinstance(record, (DNSService, DNSText)):
            if record.name in self._names and not known:
                self._touched.add(record.name)
        elif isinstance(record, DNSAddress) and not known:
            here = zc.cache.async_entries_with_server(record.name)
            self._touched.update(one.name for one in here if one.name in self._names)

    def _note_pointer(self, pointer: DNSPointer, now: float) -> None:
        name = pointer.alias
        proper = name.lower().endswith(self._suffix.lower()) and len(name) <= NAME_BYTES
        if not proper or self._ignores(name):
            return
        if pointer.is_expired(now):
            self._gone.add(name)
            return
        self._gone.discard(name)
        if self._names.get(name) is None:
            self._touched.add(name)
        self._names.setdefault(name, None)
        self._names.move_to_end(name)
        if len(self._names) > self._tracked:
            self._forget(next(iter(self._names)))

    def async_update_records_complete(self) -> None:
        """Tell what the packet changed; its records are in the cache now."""
        for name in self._gone:
            if name in self._names:
                self._forget(name)
        for name in self._touched:
            if name in self._names:
                self._resolve(name)
        self._gone.clear()
        self._touched.clear()

    def _forget(self, name: str) -> None:
        if self._names.pop(name) is not None:
            self._tell(Lost(self._instance(name)))

    def _resolve(self, name: str) -> None:
        zeroconf = self._zeroconf
        if zeroconf is None:
            return
        info = AsyncServiceInfo(self.type, name)
        if not info.load_from_cache(zeroconf) or not info.port:
            self._ask_about(name)
            return
        addresses = ordered(info.parsed_scoped_addresses(), socket.if_indextoname)
        found = Found(self._instance(name), addresses, info.port, dict(info.properties))
        if found != self._names[name]:
            self._names[name] = found
            self._tell(found)

    def _instance(self, name: str) -> str:
        return name[: -len(self._suffix)]

    def _tell(self, event: Found | Lost) -> None:
        self._events[event.name] = event
        self._events.move_to_end(event.name)
        if len(self._events) > 2 * self._tracked:
            self._events.popitem(last=False)
        self._wake.set()

    # asking for what is missing

    def ask_about_unresolved(self) -> None:
        """Ask again for the details of the names last told without."""
        unresolved = [name for name, found in self._names.items() if found is None]
        for name in unresolved[-MISSING:]:
            self._ask_about(name)

    def resolved(self) -> list[str]:
        """Return the full names all of which is known, the longest unheard first."""
        return [name for name, found in self._names.items() if found is not None]

    def _ask_about(self, name: str) -> None:
        if len(self._missing) < MISSING:
            self._missing.add(name)
        if self._missing_timer is None:
            loop = asyncio.get_running_loop()
            self._missing_timer = loop.call_later(MISSING_WAIT_S, self._ask_missing)

    def _ask_missing(self) -> None:
        """Ask for the details of names that were told without them, some in one packet."""
        self._missing_timer = None
        missing, self._missing = self._missing, set()
        if self._zeroconf is None:
            return
        packet = DNSOutgoing(_FLAGS_QR_QUERY)
        asked = False
        for name in missing:
            if self._names.get(name, True) is not None:  # gone, or resolved meanwhile
                continue
            asked = True
            info = AsyncServiceInfo(self.type, name)
            info.load_from_cache(self._zeroconf)
            for kind in (_TYPE_SRV, _TYPE_TXT):
                packet.add_question(DNSQuestion(name, kind, _CLASS_IN))
            if info.server is not None:
                for kind in (_TYPE_A, _TYPE_AAAA):
                    packet.add_question(DNSQuestion(info.server, kind, _CLASS_IN))
        if asked:
            self._zeroconf.async_send(packet)
