"""Asks the network for one service type, on behalf of all who browse it.

At once, and then at intervals that double, as RFC 6762 5.2 has it. A first question may be
answered to its sender alone; where several processes share the port, the answer may then reach
another one, so the second, a moment later, asks for an answer to all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from zeroconf import Zeroconf, current_time_millis
from zeroconf._dns import DNSQuestion
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf.const import _CLASS_IN, _FLAGS_QR_QUERY, _TYPE_PTR

from discovery.browser import Browser

SECOND_S: Final = 0.12
FIRST_INTERVAL_S: Final = 1.0
LAST_INTERVAL_S: Final = (
    600.0  # not the RFC's hour: records live 75 minutes and packets get lost
)
KNOWN_ANSWERS: Final = 24  # they stay in one packet with the question


class Asker:
    """The questions for one service type."""

    def __init__(self, service_type: str, browsers: Callable[[], Iterable[Browser]]) -> None:
        """Prepare to ask.

        Args:
            service_type: fully qualified.
            browsers: those who want to know, now.
        """
        self._type = service_type
        self._browsers = browsers
        self._zeroconf: Zeroconf | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._at_once = False

    def attach(self, zeroconf: Zeroconf) -> None:
        """Begin to ask."""
        self._zeroconf = zeroconf
        self.ask()

    def detach(self) -> None:
        """Stop asking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._zeroconf = None

    def ask(self) -> None:
        """Ask now, once for all who want it in this moment, and then at growing intervals."""
        if self._zeroconf is not None and not self._at_once:
            self._at_once = True
            self._after(0.0, self._first)

    def _after(self, wait_s: float, step: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(wait_s, step)

    def _first(self) -> None:
        self._at_once = False
        self._question(unicast=True)
        self._after(SECOND_S, lambda: self._next(FIRST_INTERVAL_S))

    def _next(self, wait_s: float) -> None:
        self._question(unicast=False)
        for browser in self._browsers():
            browser.ask_about_unresolved()
        self._after(wait_s, lambda: self._next(min(2 * wait_s, LAST_INTERVAL_S)))

    def _question(self, *, unicast: bool) -> None:
        """Send one question, with the youngest answers we have, so that they are not sent."""
        if self._zeroconf is None:
            return
        now = current_time_millis()
        question = DNSQuestion(self._type, _TYPE_PTR, _CLASS_IN)
        question.unicast = unicast
        packet = DNSOutgoing(_FLAGS_QR_QUERY)
        packet.add_question(question)
        known = [name for browser in self._browsers() for name in browser.resolved()]
        for name in known[-KNOWN_ANSWERS:]:
            cache = self._zeroconf.cache
            pointer = cache.current_entry_with_name_and_alias(self._type, name)
            if pointer is not None and not pointer.is_stale(now):
                packet.add_answer_at_time(pointer, now)
        self._zeroconf.async_send(packet)
