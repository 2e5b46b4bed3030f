"""A direct path to a peer no TCP reaches: envelopes through a mailbox, then WebRTC.

Both sides may offer. An offer is acted on once per session id and one at a time; an answer
counts only for the offer of this process it names, while that offer is open (design 5.5).
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final

from p2psync.core.ids import DeviceId
from p2psync.errors import ChannelClosedError, LocalProtocolError, RemoteProtocolError
from p2psync.net.certificate import Certificate, process_certificate
from p2psync.net.channel import Channel
from p2psync.net.handshake import authenticate_accepted, authenticate_dialled
from p2psync.net.mailbox import Mailbox
from p2psync.protocol import envelope
from p2psync.protocol.envelope import Content, Kind
from p2psync.protocol.pairkey import KnownPeer, derive, direction
from p2psync.protocol.signing import Signer

if TYPE_CHECKING:
    from p2psync.net.webrtc import Signal, WebRtcEnd

log = logging.getLogger(__name__)

OFFER_OPEN_S: Final = 20.0
ANSWER_TRIES_S: Final = 10.0
_SESSIONS_KNOWN: Final = 1_024


class Signalling:
    """What one peer and we tell each other through a mailbox."""

    def __init__(
        self,
        identity: Signer,
        peer: KnownPeer,
        peer_key: bytes,
        mailbox: Mailbox,
        *,
        certificate: Certificate | None = None,
        addresses: tuple[str, ...] | None = None,
        offer_open_s: float = OFFER_OPEN_S,
    ) -> None:
        """Touches no network yet.

        Args:
            identity: our keys.
            peer: whom this is about.
            peer_key: its X25519 public key.
            mailbox: where both sides look.
            certificate: another than the process's own.
            addresses: numeric local addresses to use; None: all there are.
            offer_open_s: how long one attempt of ours may take.
        """
        self._identity = identity
        self._peer = peer
        self._peer_key = peer_key
        self._mailbox = mailbox
        self._certificate = certificate
        self._addresses = addresses
        self._offer_open_s = offer_open_s
        self._outgoing = _slot(peer, identity.device, peer.device)
        self._incoming = _slot(peer, peer.device, identity.device)
        self._answer_tries_s = min(ANSWER_TRIES_S, offer_open_s)
        self._offering = asyncio.Lock()
        self._withdrawing: set[asyncio.Task[None]] = set()
        self._acted_on: OrderedDict[bytes, None] = OrderedDict()

    async def dial(self) -> Channel:
        """Offer, wait for the answer, connect and authenticate: one attempt.

        Raises:
            ChannelClosedError: nobody answered in time, or no path was found.
            RemoteProtocolError: at the other end is somebody else.
            OSError: the mailbox has no network.
        """
        try:
            async with asyncio.timeout(self._offer_open_s), self._offering:
                channel = await self._offer()
                return await authenticate_dialled(channel, self._identity, self._peer)
        except TimeoutError as error:
            raise ChannelClosedError("no answer through the mailbox") from error

    async def answer_offers(self) -> AsyncIterator[Channel]:
        """Answer the peer's offers, one after the other; yield each authenticated channel.

        Raises:
            OSError: the mailbox has no network.
        """
        async with aclosing(self._mailbox.watch(self._incoming)) as messages:
            async for sealed in messages:
                content = self._opened(sealed)
                if content is None or content.kind is not Kind.OFFER:
                    continue
                if self._first_time(content.session):
                    channel = await self._answer(content)
                    if channel is not None:
                        yield channel

    async def _offer(self) -> Channel:
        end = await self._new_end(offering=True)
        try:
            session = secrets.token_bytes(envelope.SESSION_BYTES)
            offer = _content(Kind.OFFER, session, b"", await end.gather())
            async with self._put(offer):
                answer = await self._answer_to(offer)
            return await end.connect(_signal(answer), self._offer_open_s)
        except BaseException:
            await end.close()
            raise

    async def _answer_to(self, offer: Content) -> Content:
        named = envelope.digest(offer)
        async with aclosing(self._mailbox.watch(self._incoming)) as messages:
            async for sealed in messages:
                content = self._opened(sealed)
                if (
                    content is not None
                    and content.kind is Kind.ANSWER
                    and content.session == offer.session
                    and content.offer == named
                ):
                    return content
        raise ChannelClosedError("the mailbox is closed")

    async def _answer(self, offer: Content) -> Channel | None:
        """Act on an offer; None if nothing comes of it."""
        end = await self._new_end(offering=False)
        try:
            named = envelope.digest(offer)
            answer = _content(Kind.ANSWER, offer.session, named, await end.gather())
            async with self._put(answer):
                channel = await end.connect(_signal(offer), self._answer_tries_s)
            _, admitted = await authenticate_accepted(
                channel, self._identity, lambda: [self._peer]
            )
            return admitted
        except (ChannelClosedError, RemoteProtocolError, LocalProtocolError) as error:
            log.debug("an offer of %s came to nothing: %s", self._peer.device.short, error)
            await end.close()
            return None
        except BaseException:
            await end.close()
            raise

    async def _new_end(self, *, offering: bool) -> WebRtcEnd:
        # heavy: imported at the first need, and not on the loop's time
        await asyncio.to_thread(importlib.import_module, "p2psync.net.webrtc")
        from p2psync.net.webrtc import WebRtcEnd

        certificate = self._certificate or process_certificate()
        return WebRtcEnd(certificate, offering=offering, addresses=self._addresses)

    @asynccontextmanager
    async def _put(self, content: Content) -> AsyncIterator[None]:
        """Seal the content and keep it in the mailbox for as long as it is of use."""
        sealed = envelope.seal(self._identity, self._peer.device, self._peer_key, content)
        kept = await self._mailbox.put(self._outgoing, sealed, self._offer_open_s)
        try:
            yield
        finally:
            # a mailbox may take its time to say goodbye; nobody has to wait for that
            task = asyncio.get_running_loop().create_task(kept.withdraw())
            self._withdrawing.add(task)
            task.add_done_callback(self._withdrawing.discard)

    def _opened(self, sealed: bytes) -> Content | None:
        try:
            return envelope.unseal(self._identity, self._peer.device, sealed)
        except RemoteProtocolError as error:
            log.debug("something else in the mailbox of %s: %s", self._peer.device.short, error)
            return None

    def _first_time(self, session: bytes) -> bool:
        if session in self._acted_on:
            return False
        self._acted_on[session] = None
        if len(self._acted_on) > _SESSIONS_KNOWN:
            self._acted_on.popitem(last=False)
        return True


def _slot(peer: KnownPeer, sender: DeviceId, receiver: DeviceId) -> str:
    """Return the slot of one direction: a name that only this pair can compute."""
    name = derive(peer.pair_key, b"slot", direction(sender, receiver))
    return base64.b32encode(name).decode().rstrip("=").lower()


def _content(kind: Kind, session: bytes, offer: bytes, ours: Signal) -> Content:
    candidates = envelope.fitting(kind, ours.candidates)
    return Content(kind, session, offer, ours.seed, ours.fingerprint, candidates)


def _signal(content: Content) -> Signal:
    from p2psync.net.webrtc import Signal

    return Signal(content.seed, content.fingerprint, content.candidates)
