"""Carries out what the command line asks for, and says in public words what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING

from p2psync.control import messages as public
from p2psync.control.server import Ask
from p2psync.engine import events

if TYPE_CHECKING:  # the engine is heavy, and this module needs no more than its shape
    from p2psync.engine.engine import Engine

Replies = AsyncGenerator[public.Reply, None]


class Api:
    """Maps requests to the engine and its events to replies."""

    def __init__(self, engine: Engine, stop: Callable[[], None]) -> None:
        """Answer for this engine; `stop` makes the agent end soon."""
        self._engine = engine
        self._stop = stop

    async def handle(self, request: public.Request, ask: Ask) -> Replies:
        """Carry out one request; the replies end with a `Result`.

        Closing the generator ends the work that still goes on for it.
        """
        async with contextlib.aclosing(self._replies(request, ask)) as replies:
            async for reply in replies:
                yield reply

    def _replies(self, request: public.Request, ask: Ask) -> Replies:
        match request:
            case public.Share(path, name):
                return _told(self._engine.share(path, name))
            case public.Wait(path, timeout_s):
                return _told(self._engine.wait(path, timeout_s))
            case public.Accept():
                return self._accept(request, ask)
            case _:
                return self._at_once(request)

    async def _at_once(self, request: public.Request) -> Replies:
        match request:
            case public.GetStatus():
                yield status(await self._engine.status())
            case public.GetDevices():
                for device in await self._engine.devices():
                    yield public.Device(
                        str(device.device), device.name, device.connected, device.folders
                    )
            case public.Leave(path, purge):
                await self._engine.leave(path, purge)
            case public.Forget(device_name, path):
                yield public.Forgotten(str(await self._engine.forget(device_name, path)))
            case public.Stop():
                # before the result: a caller that has it may hang up, which ends this
                self._stop()
            case (
                public.Ping()
                | public.Answer()
                | public.Share()
                | public.Accept()
                | public.Wait()
            ):
                pass  # nothing to do, or not done at once
        yield public.Result(0)

    async def _accept(self, request: public.Accept, ask: Ask) -> Replies:
        async def confirm(offer: events.Offer) -> bool:
            return await ask(public.Question(_offer(offer), offer.target, offer.occupied))

        stream = self._engine.accept(
            request.code, request.path, request.directory, request.timeout_s, confirm
        )
        async with contextlib.aclosing(_told(stream)) as replies:
            async for reply in replies:
                yield reply


async def _told(stream: AsyncIterator[events.Event]) -> Replies:
    """Give the public form of each event; ends after the `Result`, then closes the stream."""
    try:
        async for event in stream:
            yield told(event)
            if isinstance(event, events.Finished):
                return
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
    raise AssertionError("a stream of the engine ends with Finished")


def told(event: events.Event) -> public.Event | public.Result:
    """Return the public form of one event of the engine."""
    match event:
        case events.CodeReady():
            return public.Code(event.code, event.expires_s)
        case events.Burned():
            return public.Burned(event.addresses)
        case events.Offer():
            return _offer(event)
        case events.Paired():
            return public.Paired(str(event.device), event.name)
        case events.Progress():
            return public.Progress(
                event.files, event.files_total, event.bytes, event.bytes_total
            )
        case events.StateChanged():
            return public.State(event.state, event.path)
        case events.Finished():
            return public.Result(int(event.exit_code), event.message or None)


def status(snapshot: events.Status) -> public.Status:
    """Return the public form of the engine's status."""
    return public.Status(
        device=str(snapshot.device),
        name=snapshot.name,
        version=snapshot.version,
        folders=tuple(_folder(folder) for folder in snapshot.folders),
        peers=tuple(
            public.PeerInfo(
                device=str(peer.device),
                name=peer.name,
                state=peer.state,
                transport=peer.transport,
                address=peer.address,
                rtt_ms=peer.rtt_ms,
                last_seen_s=peer.last_seen_s,
                need_files=peer.need_files,
                need_bytes=peer.need_bytes,
            )
            for peer in snapshot.peers
        ),
    )


def _folder(folder: events.FolderStatus) -> public.FolderInfo:
    return public.FolderInfo(
        path=folder.path,
        id=str(folder.folder),
        name=folder.name,
        state=folder.state,
        detail=folder.detail,
        need_files=folder.need_files,
        need_bytes=folder.need_bytes,
        files=folder.files,
        size_bytes=folder.size_bytes,
        conflicts=folder.conflicts,
        problems=tuple(
            public.ProblemInfo(
                p.path,
                f"{p.reason} ({p.detail})" if p.detail else str(p.reason),
                p.blocks or folder.need_files > 0,
            )
            for p in folder.problems
        ),
    )


def _offer(offer: events.Offer) -> public.Offer:
    return public.Offer(
        device=str(offer.device),
        name=offer.device_name,
        folder=offer.folder_name,
        files=offer.files,
        bytes=offer.bytes,
        complete=offer.complete,
    )
