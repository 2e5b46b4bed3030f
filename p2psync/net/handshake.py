"""Who is at the other end of a fresh channel: runs `protocol.auth` over it, either side.

Both functions return an admitted channel of a proven peer, or close the channel and raise.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from p2psync.core.ids import DeviceId
from p2psync.errors import ChannelClosedError, RemoteProtocolError
from p2psync.net.channel import Channel
from p2psync.net.driver import drive
from p2psync.protocol.auth import NONCE_BYTES, AuthDialler, Authenticated, AuthListener
from p2psync.protocol.machine import Failed
from p2psync.protocol.pairkey import KnownPeer
from p2psync.protocol.signing import Signer


async def authenticate_dialled(channel: Channel, identity: Signer, peer: KnownPeer) -> Channel:
    """Prove to the listening end who we are, once it has proven to be `peer`.

    Raises:
        ChannelClosedError: it went away; a peer that does not know us does just that.
        RemoteProtocolError: it is somebody else, or took longer than ten seconds.
    """
    now = asyncio.get_running_loop().time()
    nonce = secrets.token_bytes(NONCE_BYTES)
    machine = AuthDialler(identity, peer, channel.binding, nonce, now=now)
    await _authenticate(channel, machine)
    return channel


async def authenticate_accepted(
    channel: Channel, identity: Signer, peers: Callable[[], Sequence[KnownPeer]]
) -> tuple[DeviceId, Channel]:
    """Learn which of our peers opened this channel; somebody else gets no answer.

    peers: asked once, now; whoever may come in.

    Raises:
        ChannelClosedError: it went away.
        RemoteProtocolError: it is nobody we know, or took longer than ten seconds.
    """
    now = asyncio.get_running_loop().time()
    nonce = secrets.token_bytes(NONCE_BYTES)
    machine = AuthListener(identity, tuple(peers()), channel.binding, nonce, now=now)
    return await _authenticate(channel, machine), channel


def authenticating(
    identity: Signer,
    peers: Callable[[], Sequence[KnownPeer]],
    on_peer: Callable[[DeviceId, Channel], Awaitable[None]],
) -> Callable[[Channel], Awaitable[None]]:
    """Return an `on_channel` for listeners: on_peer is awaited for each channel of a peer."""

    async def on_channel(channel: Channel) -> None:
        device, admitted = await authenticate_accepted(channel, identity, peers)
        await on_peer(device, admitted)

    return on_channel


async def _authenticate(channel: Channel, machine: AuthDialler | AuthListener) -> DeviceId:
    try:
        async with aclosing(drive(channel, machine)) as events:
            async for event in events:
                match event:
                    case Authenticated(peer):
                        channel.admit()
                        return peer
                    case Failed(reason):
                        raise RemoteProtocolError(reason)
        raise AssertionError("a driver does not end")
    except BaseException as error:
        reason = (
            str(error) if isinstance(error, (ChannelClosedError, RemoteProtocolError)) else ""
        )
        channel.abort(f"not authenticated: {reason or 'given up'}")
        raise
