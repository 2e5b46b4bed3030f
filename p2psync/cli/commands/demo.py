"""`p2psync demo`: two throw-away devices on this machine, paired for real."""

from __future__ import annotations

import contextlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import click

from p2psync.agent import spawn
from p2psync.cli.app import App, pass_app, shared
from p2psync.config.places import Places
from p2psync.control.client import Client
from p2psync.control.messages import (
    Accept,
    Code,
    Event,
    GetStatus,
    Question,
    Result,
    Share,
    Started,
    Status,
)
from p2psync.errors import ExitCode, UserError

ARRIVAL_TIMEOUT_S: Final = 15.0
NAP_S: Final = 0.001
FILES: Final = 200
PAIR_TIMEOUT_S: Final = 30.0
SIDES: Final = ("left", "right")


@click.command(name="demo")
@shared
@pass_app
def command(app: App) -> int:
    """Watch two folders on this machine stay equal, for ten seconds.

    Two devices with homes of their own find each other over mDNS, are paired with a code and
    talk over TLS, as they would on two machines. Nothing of it is kept.
    """
    with _stage() as stage:
        demo = Demo(app, stage)
        demo.pair()
        demo.edit()
    app.output.say("\nThat was all real. On your own folders:  p2psync share ./photos")
    return app.output.result(ExitCode.DONE)


@contextlib.contextmanager
def _stage() -> Iterator[Path]:
    """Give a directory for both devices, and take both devices and it away again."""
    stage = Path(tempfile.mkdtemp(prefix="p2psync-demo-"))
    try:
        yield stage
    finally:
        for side in SIDES:
            with contextlib.suppress(UserError):
                spawn.stop(_places(stage, side))
        shutil.rmtree(stage, ignore_errors=True)


def _places(stage: Path, side: str) -> Places:
    return Places(stage / f"{side}-home")


class Demo:
    """The play: two devices, one folder each."""

    def __init__(self, app: App, stage: Path) -> None:
        """Set the stage."""
        self._output = app.output
        self._homes = {side: _places(stage, side) for side in SIDES}
        self._left = stage / "left"
        self._right = stage / "right"

    def pair(self) -> None:
        """Start both agents, share on the left and accept on the right."""
        self._left.mkdir()
        for number in range(FILES):
            (self._left / f"photo-{number:03}.txt").write_text(f"photo {number}\n" * 50)
        for side, places in self._homes.items():
            places.create()
            places.config.write_text(f'name = "{side}"\n')
            spawn.start(places)
        self._say(f"Two devices, {FILES} files in {self._left}")
        code, sharing = self._share()
        self._say(f"left$  p2psync share ./left      code: {code}")
        self._say(f"right$ p2psync accept {code}")
        began = time.monotonic()
        request = Accept(code, bytes(self._right), bytes(self._right.parent), PAIR_TIMEOUT_S)
        self._end(_stream(self._homes["right"], request))
        self._measured("found, paired and up to date", time.monotonic() - began)
        self._end(sharing)
        self._say(f"       connected by {self._transport()}")

    def edit(self) -> None:
        """Change things on either side and measure when they show on the other."""
        left, right = self._left, self._right
        self._watch(
            "a new file, left to right",
            lambda: (left / "note.txt").write_text("hello\n"),
            lambda: _content(right / "note.txt") == b"hello\n",
        )
        self._watch(
            "an edit, right to left",
            lambda: (right / "note.txt").write_text("hello, left\n"),
            lambda: _content(left / "note.txt") == b"hello, left\n",
        )
        self._watch(
            "a rename, left to right",
            lambda: (left / "note.txt").rename(left / "letter.txt"),
            lambda: (right / "letter.txt").exists() and not (right / "note.txt").exists(),
        )
        self._watch(
            "a directory with 100 files, right to left",
            lambda: _fill(right / "album", 100),
            lambda: _count(left / "album") == 100,
        )
        self._watch(
            "a delete, left to right",
            lambda: (left / "letter.txt").unlink(),
            lambda: not (right / "letter.txt").exists(),
        )

    def _share(self) -> tuple[str, Iterator[Event | Result]]:
        """Put up the code; what follows is read by a thread while the right side accepts."""
        events: queue.SimpleQueue[Event | Result | UserError] = queue.SimpleQueue()

        def follow() -> None:
            try:
                for event in _stream(self._homes["left"], Share(bytes(self._left))):
                    events.put(event)
            except UserError as error:
                events.put(error)

        threading.Thread(target=follow, daemon=True).start()
        stream = _until_result(events)
        for event in stream:
            if isinstance(event, Code):
                return event.code, stream
            self._check(event)
        raise AssertionError("sharing gives a code or fails")

    def _end(self, stream: Iterator[Event | Result]) -> None:
        for event in stream:
            self._check(event)

    @staticmethod
    def _check(event: Event | Result) -> None:
        if isinstance(event, Result) and event.exit != ExitCode.DONE:
            raise UserError(event.error or "It did not work.", ExitCode(event.exit))

    def _transport(self) -> str:
        seen = [
            event
            for event in _stream(self._homes["left"], GetStatus())
            if isinstance(event, Status)
        ]
        return ", ".join(f"{p.transport} ({p.address})" for one in seen for p in one.peers)

    def _watch(
        self, what: str, change: Callable[[], object], arrived: Callable[[], bool]
    ) -> None:
        began = time.monotonic()
        change()
        while not arrived():
            if time.monotonic() - began > ARRIVAL_TIMEOUT_S:
                raise UserError(
                    f"{what}: did not arrive in {ARRIVAL_TIMEOUT_S:.0f} s.", ExitCode.TIMEOUT
                )
            time.sleep(NAP_S)
        self._measured(what, time.monotonic() - began)

    def _measured(self, what: str, took_s: float) -> None:
        self._say(f"{took_s * 1_000:7.0f} ms  {what}")
        self._output.fields({"type": "measured", "what": what, "ms": round(took_s * 1_000, 1)})

    def _say(self, line: str) -> None:
        self._output.say(line)


def _stream(places: Places, request: Share | Accept | GetStatus) -> Iterator[Event | Result]:
    """Yield what the agent of this home answers; questions are answered with yes."""
    with Client(places.socket) as client:
        for reply in client.request(request):
            if isinstance(reply, Question):
                client.answer(True)
            elif not isinstance(reply, Started):
                yield reply


def _until_result(
    events: queue.SimpleQueue[Event | Result | UserError],
) -> Iterator[Event | Result]:
    while True:
        event = events.get()
        if isinstance(event, UserError):
            raise event
        yield event
        if isinstance(event, Result):
            return


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _fill(directory: Path, files: int) -> None:
    directory.mkdir()
    for number in range(files):
        (directory / f"{number}.txt").write_text(f"{number}\n")


def _count(directory: Path) -> int:
    try:
        return sum(1 for _ in directory.iterdir())
    except FileNotFoundError:
        return 0
