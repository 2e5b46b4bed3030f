"""One attempt at a WebRTC connection, from the first socket to the open channel."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ipaddress
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiortc import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
)

from p2psync.errors import ChannelClosedError
from p2psync.net.certificate import Certificate
from p2psync.net.webrtc.channel import WebRtcChannel
from p2psync.net.webrtc.ice import GuardedConnection, own_addresses
from p2psync.net.webrtc.stack import Stack, best
from p2psync.net.webrtc.stopping import in_background, stop
from p2psync.protocol.envelope import Candidate, CandidateType

_TYPES: Final = {
    CandidateType.HOST: "host",
    CandidateType.REFLEXIVE: "srflx",
    CandidateType.RELAYED: "relay",
}
_TYPE_PREFERENCE: Final = {
    CandidateType.HOST: 126,
    CandidateType.REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}


class Signal(NamedTuple):
    """What one side must know of the other to connect to it.

    seed: 16 random bytes of which its ICE name and password are made. fingerprint: SHA-256 of
    its certificate. candidates: where it may be reached, best first.
    """

    seed: bytes
    fingerprint: bytes
    candidates: tuple[Candidate, ...]


class WebRtcEnd:
    """One attempt at a connection, on one side: `gather`, exchange signals, `connect`."""

    def __init__(
        self,
        certificate: Certificate,
        *,
        offering: bool,
        addresses: Sequence[str] | None = None,
        stack: Stack | None = None,
    ) -> None:
        """addresses: numeric local ones to use; None: all there are. stack: None: the best."""
        self._certificate = certificate
        self._offering = offering
        self._seed = secrets.token_bytes(16)
        gatherer = RTCIceGatherer(iceServers=[])
        name, password = _credentials(self._seed)
        gatherer._connection = GuardedConnection(
            name, password, addresses or own_addresses(), offering
        )
        self._gatherer = gatherer
        self._ice = RTCIceTransport(gatherer)
        own = RTCCertificate(certificate.key, certificate.x509)
        self._stack = stack or best()
        self._dtls = self._stack.dtls(self._ice, [own])

    async def gather(self) -> Signal:
        """Open our sockets; return what the other side must know."""
        await self._gatherer.gather()
        candidates = tuple(
            Candidate(CandidateType.HOST, ipaddress.ip_address(found.ip), found.port)
            for found in self._gatherer.getLocalCandidates()
        )
        return Signal(self._seed, self._certificate.fingerprint, candidates)

    async def connect(self, theirs: Signal, timeout_s: float) -> WebRtcChannel:
        """Connect to the other side, which does the same with our signal.

        Raises:
            ChannelClosedError: no path was found in time, or at its end is somebody else.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._connect(theirs)
        except TimeoutError as error:
            await self.close()
            raise ChannelClosedError("no direct path was found in time") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give up and close the sockets; for an end that is not connected."""
        await asyncio.shield(in_background(stop(self._dtls, self._ice)))

    async def _connect(self, theirs: Signal) -> WebRtcChannel:
        for candidate in theirs.candidates:
            if _usable(candidate):
                await self._ice.addRemoteCandidate(_candidate(candidate))
        await self._ice.addRemoteCandidate(None)
        name, password = _credentials(theirs.seed)
        await self._ice.start(RTCIceParameters(usernameFragment=name, password=password))
        if self._ice.state != "completed":
            raise ChannelClosedError("no direct path was found")
        fingerprint = RTCDtlsFingerprint("sha-256", theirs.fingerprint.hex(":").upper())
        await self._dtls.start(RTCDtlsParameters(fingerprints=[fingerprint]))
        if self._dtls.state != "connected":
            raise ChannelClosedError("what answered is not the device that signed for it")
        ours = self._certificate.fingerprint
        in_order = (ours, theirs.fingerprint) if self._offering else (theirs.fingerprint, ours)
        binding = hashlib.sha256(b"".join(in_order)).digest()
        channel = WebRtcChannel(
            self._ice, self._dtls, self._stack.sctp, self._offering, binding
        )
        await channel.open()
        return channel


def _credentials(seed: bytes) -> tuple[str, str]:
    """Return the ICE name and password that belong to a seed."""
    name = base64.b64encode(hashlib.sha256(b"p2psync/1 ice name\0" + seed).digest())
    password = base64.b64encode(hashlib.sha256(b"p2psync/1 ice password\0" + seed).digest())
    return name[:8].decode(), password[:32].decode()


def _usable(candidate: Candidate) -> bool:
    address = candidate.address
    return candidate.port > 0 and not (address.is_multicast or address.is_unspecified)


def _candidate(candidate: Candidate) -> RTCIceCandidate:
    preference = _TYPE_PREFERENCE[candidate.type]
    host = str(candidate.address)
    return RTCIceCandidate(
        component=1,
        foundation=hashlib.sha256(f"{candidate.type} {host}".encode()).hexdigest()[:16],
        ip=host,
        port=candidate.port,
        priority=(preference << 24) + (65535 << 8) + 255,
        protocol="udp",
        type=_TYPES[candidate.type],
    )
