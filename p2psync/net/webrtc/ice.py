"""ICE with guarded sockets: bounded queues, and nothing taken from who has not proven himself.

aioice queues every datagram that is not STUN, from anybody and without bound, and lets an empty
one end the connection. Here a datagram counts only when it could be DTLS and comes from an
address whose STUN checks were made with our password or that the peer signed for. The private
names this needs are all in this module and guarded by tests.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final

from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection, StunProtocol, get_host_addresses

from p2psync.net.addresses import resolve
from p2psync.net.webrtc.udp import Datagrams

log = logging.getLogger(__name__)

QUEUE: Final = 1_024
"""Datagrams that wait to be decrypted; further ones are dropped, as a full socket would."""

_SOCKETS: Final = 16  # as many as candidates fit into an envelope
_COMPONENT: Final = 1
_STUN: Final = range(4)  # the first byte of a datagram says what it is (RFC 7983)
_DTLS: Final = range(20, 64)


def own_addresses() -> list[str]:
    """Return the addresses peers may reach us at; loopback only where there is nothing else."""
    found = get_host_addresses(use_ipv4=True, use_ipv6=True)
    return found[:_SOCKETS] or ["127.0.0.1"]


class GuardedSocket(StunProtocol):
    """One UDP socket of a connection."""

    receiver: GuardedConnection

    def datagram_received(self, data: bytes | str, addr: tuple[object, ...]) -> None:
        """Take a datagram of anybody's."""
        if not data or isinstance(data, str):
            return
        if data[0] in _STUN:
            try:
                super().datagram_received(data, addr)
            except Exception as error:
                # a stranger's bytes must never reach the event loop as an exception
                log.debug("a broken STUN message: %r", error)
        elif data[0] in _DTLS and self.receiver.knows(addr):
            self.receiver.data_received(data, _COMPONENT)


class GuardedConnection(Connection):
    """One ICE connection over guarded sockets, without any server."""

    def __init__(
        self, username: str, password: str, addresses: Sequence[str], controlling: bool
    ) -> None:
        """Bind nothing yet; `gather_candidates` does. addresses: numeric local ones."""
        super().__init__(controlling, local_username=username, local_password=password)
        self._addresses = addresses
        self._known: set[tuple[str, int]] = set()
        self._known_candidates = 0

    def take_waiting(self, most: int) -> list[bytes]:
        """Return up to so many of the datagrams that wait for the layer above."""
        taken: list[bytes] = []
        while len(taken) < most and not self._queue.empty():
            found = self._queue.get_nowait()
            if found is None:  # the end, which `recv` is to tell
                self._queue.put_nowait(None)
                break
            taken.append(found[0])
        return taken

    def send_now(self, datagrams: Sequence[bytes]) -> None:
        """Send some datagrams to the peer; nothing, where there is no path."""
        if pair := self._nominated.get(_COMPONENT):
            self._sending().send_all(datagrams, pair.remote_addr)

    @property
    def blocked(self) -> bool:
        """True while the network device takes nothing, or there is no path."""
        return not self._nominated or self._sending().blocked

    def on_writable(self, call: Callable[[], None]) -> None:
        """Call this whenever the network device takes datagrams again."""
        if self._nominated:
            self._sending().on_writable = call

    def _sending(self) -> Datagrams:
        transport = self._nominated[_COMPONENT].protocol.transport
        assert isinstance(transport, Datagrams)
        return transport

    def knows(self, addr: tuple[object, ...]) -> bool:
        """Say whether an address is a candidate of the peer, told or found by a check."""
        if len(self._remote_candidates) != self._known_candidates:
            self._known_candidates = len(self._remote_candidates)
            self._known = {
                (str(ipaddress.ip_address(candidate.host)), candidate.port)
                for candidate in self._remote_candidates
            }
        return addr[:2] in self._known

    def data_received(self, data: bytes, component: int) -> None:
        """Queue a datagram for the layer above, if it could be for it and there is room."""
        if data and data[0] in _DTLS and self._queue.qsize() < QUEUE:
            super().data_received(data, component)

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],
        timeout: int = 5,  # noqa: ASYNC109 - the signature is aioice's
    ) -> list[Candidate]:
        """Bind one guarded socket to each of our addresses."""
        found = []
        for address in self._addresses:
            try:
                bound = _bound(address)
            except OSError as error:
                log.debug("cannot use %s: %s", address, error.strerror)
                continue
            guarded = GuardedSocket(self)
            Datagrams(bound, guarded)
            host, port = guarded.transport.get_extra_info("sockname")[:2]
            guarded.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host"),
                host=host,
                port=port,
                type="host",
            )
            self._protocols.append(guarded)
            found.append(guarded.local_candidate)
        return found


def _bound(address: str) -> socket.socket:
    """Return a UDP socket at a numeric address of ours.

    Raises:
        OSError: it is none of ours.
    """
    family, where = resolve(address, 0)
    with contextlib.ExitStack() as on_error:
        bound = on_error.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        bound.bind(where)
        on_error.pop_all()
        return bound
