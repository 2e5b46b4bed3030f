"""One device on a LAN, for `test_reach`: finds its peer, dials or is dialled, says over what.

    python -m tests.net.reach_program DIRECTORY dial|answer   < the peer's two public keys

Prints one JSON object per line: its own public keys first, then what became of the meeting.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import aclosing
from pathlib import Path

from p2psync.core.ids import DeviceId
from p2psync.identity.keys import Identity, load_or_create
from p2psync.net.certificate import process_certificate
from p2psync.net.channel import Channel
from p2psync.net.dial import dial_peer
from p2psync.net.handshake import authenticating
from p2psync.net.lan import Lan, LanPresence, PairingSlots
from p2psync.net.signalling import Signalling
from p2psync.net.tls import TlsListener
from p2psync.protocol.pairkey import KnownPeer

MESSAGE = b"over the wire" * 10_000


def say(**what: object) -> None:
    """Print one line for the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def dial(
    identity: Identity, peer: KnownPeer, presence: LanPresence, signalling: Signalling
) -> None:
    """Find the peer, reach it by the whole ladder, and hear our own message back."""
    async with aclosing(presence.sightings()) as sightings:
        sighting = await anext(sightings)
    started = time.monotonic()
    channel = await dial_peer(identity, peer, sighting.addresses, signalling)
    took = time.monotonic() - started
    await channel.send(MESSAGE)
    echoed = await channel.receive() == MESSAGE
    say(transport=channel.transport, address=channel.address, took=took, echoed=echoed)
    await channel.close()


async def echo(device: DeviceId, channel: Channel) -> None:
    """Send one message back."""
    await channel.send(await channel.receive())


async def answer(signalling: Signalling, device: DeviceId) -> None:
    """Answer offers for ever."""
    async for channel in signalling.answer_offers():
        await echo(device, channel)


async def main(directory: str, role: str) -> None:
    """Be the device until the dialling is done, or for ever."""
    identity = load_or_create(Path(directory))
    say(device=identity.device.hex(), key=identity.key.hex())
    told = json.loads(await asyncio.to_thread(sys.stdin.readline))
    device, key = DeviceId(bytes.fromhex(told["device"])), bytes.fromhex(told["key"])
    peer = KnownPeer(device, identity.exchange(key, device))
    on_channel = authenticating(identity, lambda: [peer], echo)
    listener = await TlsListener.open(process_certificate(), on_channel)
    async with Lan() as lan:
        presence = LanPresence(lan, identity.device)
        mailbox = PairingSlots(lan).mailbox()
        signalling = Signalling(identity, peer, key, mailbox)
        if role == "dial":
            await presence.peers_changed({device: peer.pair_key})
            await dial(identity, peer, presence, signalling)
        else:
            await presence.announce(listener.port, {device: peer.pair_key})
            await answer(signalling, device)
    await listener.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
