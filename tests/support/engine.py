"""An engine that does nothing but answer, for the tests of the command line's own half."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from p2psync.agent.api import Api
from p2psync.config.places import Places
from p2psync.control import server
from p2psync.core.ids import DeviceId, FolderId
from p2psync.core.problem import Problem, Reason
from p2psync.engine.events import (
    CodeReady,
    DeviceStatus,
    Event,
    Finished,
    FolderStatus,
    Offer,
    Paired,
    PeerStatus,
    Progress,
    State,
    StateChanged,
    Status,
)
from p2psync.errors import ExitCode, UserError

PI = DeviceId(bytes(range(32)))
ME = DeviceId(bytes(32))
FOLDER = FolderId(bytes(range(16)))
CODE = "zebra-apple-river-stone"
OFFER = Offer(PI, "pi", FOLDER, "photos", 1_204, 3_100_000_000, complete=True)
EVIL = "e\x1b[2Jvil\u202e"

STATUS = Status(
    ME,
    "desk",
    "0.1.0",
    (
        FolderStatus(
            b"/home/a/photos",
            FOLDER,
            "photos",
            State.UP_TO_DATE,
            "",
            0,
            0,
            1_204,
            3_100_000_000,
        ),
        FolderStatus(
            b"/home/a/n\xffotes\n",
            FOLDER,
            "notes",
            State.BLOCKED,
            "",
            2,
            1_000_000,
            12,
            999_999,
            conflicts=(b"todo (conflict pi).txt",),
            problems=(
                Problem(b"key", Reason.UNREADABLE),
                Problem(b"a/b", Reason.NO_SPACE, "needs 3 GB"),
            ),
        ),
        FolderStatus(
            b"/mnt/usb", FOLDER, "usb", State.HELD, "the disk is not mounted", 0, 0, 1, 1
        ),
    ),
    (
        PeerStatus(PI, "pi", "connected", "tls", "192.168.1.20:4711", 0.61, 0.0),
        PeerStatus(ME, EVIL, "offline", "", "", None, 200_000.0),
        PeerStatus(PI, "new", "connecting", "", "", None, None),
    ),
)


class Engine:
    """Offers what `p2psync.engine.engine.Engine` offers; the test says how it goes."""

    def __init__(self) -> None:
        self.shared: list[Event] = [
            CodeReady(CODE, 600),
            Paired(PI, "pi"),
            Progress(1, 2, 10, 20),
            StateChanged(State.UP_TO_DATE, b"/srv/\xff"),
            Finished(ExitCode.DONE),
        ]
        self.accepted: list[Event] = [
            Paired(PI, "pi"),
            StateChanged(State.SYNCING, b"/srv/photos"),
            Finished(ExitCode.DONE),
        ]
        self.waited: list[Event] = [Finished(ExitCode.TIMEOUT, "Not in sync after 1 s.")]
        self.pause_after: type[Event] | None = None
        self.withdrawn = threading.Event()
        self.calls: list[tuple[object, ...]] = []

    async def _play(self, events: list[Event]) -> AsyncIterator[Event]:
        try:
            for event in events:
                yield event
                if self.pause_after is not None and isinstance(event, self.pause_after):
                    await asyncio.Event().wait()
        finally:
            self.withdrawn.set()

    def share(self, path: bytes, name: str | None) -> AsyncIterator[Event]:
        self.calls.append(("share", path, name))
        return self._play(self.shared)

    async def accept(
        self,
        code: str,
        path: bytes | None,
        directory: bytes,
        timeout_s: float,
        confirm: Callable[[Offer], Awaitable[bool]],
    ) -> AsyncIterator[Event]:
        self.calls.append(("accept", code, path, directory, timeout_s))
        yield OFFER
        target = path or os.path.join(directory, b"photos")
        taken = path is None and await asyncio.to_thread(os.path.exists, target)
        if not await confirm(replace(OFFER, target=target, occupied=taken)):
            yield Finished(ExitCode.DONE, "Declined.")
            return
        async for event in self._play(self.accepted):
            yield event

    def wait(self, path: bytes | None, timeout_s: float | None) -> AsyncIterator[Event]:
        self.calls.append(("wait", path, timeout_s))
        return self._play(self.waited)

    async def status(self) -> Status:
        return STATUS

    async def devices(self) -> tuple[DeviceStatus, ...]:
        return (
            DeviceStatus(PI, "pi", True, (b"/home/a/photos", b"/srv/\xff")),
            DeviceStatus(ME, EVIL, False, ()),
        )

    async def leave(self, path: bytes, purge: bool) -> None:
        self.calls.append(("leave", path, purge))
        if path.endswith(b"/none"):
            raise UserError("This folder is not shared.")

    async def forget(self, device: str, path: bytes | None) -> DeviceId:
        self.calls.append(("forget", device, path))
        return PI


class Running:
    """An agent's control socket with such an engine behind it, in a thread of the test."""

    def __init__(self, places: Places) -> None:
        self.engine = Engine()
        self.stopped = threading.Event()
        self._places = places
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._places.create()
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        api = Api(self.engine, self.stopped.set)
        with server.listening(self._places.socket) as listening:
            self._task = self._loop.create_task(server.serve(listening, api.handle))
            self._ready.set()
            try:
                self._loop.run_until_complete(self._task)
            except asyncio.CancelledError:
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
