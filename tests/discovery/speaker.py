"""A process that announces, browses and uses mailboxes as told on its input, line by line.

Run as a program it speaks; `Speaker` starts one on a test host and talks to it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from discovery.mailbox import Handle, MdnsMailbox
from discovery.mdns import Lan
from discovery.records import Found
from discovery.registration import Registration
from tests.support import netns

ROOT: Final = Path(__file__).parents[2]
TYPE: Final = "_test._tcp"
WAIT_S: Final = 20.0


class Speaker:
    """The test's end of the conversation."""

    def __init__(self, lan: netns.Lan, host: str) -> None:
        self.process = lan.popen(
            host,
            [sys.executable, "-W", "error", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.heard: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def tell(self, do: str, **fields: Any) -> float:
        """Send a command; return when, on the clock of every event's `at`."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self.process.stdin.flush()
        return time.monotonic()

    def hear(self, event: str, timeout: float = WAIT_S, **fields: Any) -> dict[str, Any]:
        """Return the first event of a kind with these fields not heard yet.

        Raises:
            AssertionError: it did not come in time; with what came.
        """
        deadline = time.monotonic() + timeout
        for early in self.heard:
            if early["event"] == event and fields.items() <= early.items():
                self.heard.remove(early)
                return early
        while time.monotonic() < deadline:
            try:
                got = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if got["event"] == event and fields.items() <= got.items():
                return got
            self.heard.append(got)
        last = self.heard[-5:]
        raise AssertionError(f"no {event} {fields} within {timeout} s; lately {last}")

    def announce(self, name: str, port: int = 1234, type_: str = TYPE, **txt: str) -> float:
        self.tell("announce", type=type_, name=name, port=port, txt=txt)
        return float(self.hear("announcing", name=name)["at"])

    def browse(self, type_: str = TYPE) -> float:
        self.tell("browse", type=type_)
        return float(self.hear("browsing")["at"])

    def ready(self) -> Speaker:
        """Wait until it has started."""
        self.hear("ready")
        return self


def say(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n")
    sys.stdout.flush()


def rss_kib() -> int:
    """Return this process's memory now, as the kernel counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


async def show(lan: Lan, service_type: str) -> None:
    async for event in lan.browse(service_type):
        if isinstance(event, Found):
            strings = [(key, value or b"") for key, value in event.txt.items()]
            txt = {key.decode("latin1"): value.decode("latin1") for key, value in strings}
            say("found", **{**event._asdict(), "txt": txt})
        else:
            say("lost", name=event.name)


async def take(mailbox: MdnsMailbox, slot: str) -> None:
    async for message in mailbox.watch(slot):
        say("message", slot=slot, data=base64.b64encode(message).decode())


class Speech:
    """The speaking end: what each command does."""

    def __init__(self, lan: Lan, group: asyncio.TaskGroup) -> None:
        self.lan, self.group = lan, group
        self.mailbox = MdnsMailbox(lan)
        self.announced: dict[str, Registration] = {}
        self.put: dict[str, Handle] = {}

    async def do(self, command: dict[str, Any]) -> None:
        match command:
            case {"do": "announce", "type": type_, "name": name, "port": port, "txt": txt}:
                say("announcing", name=name)
                strings = {key.encode(): value.encode() for key, value in txt.items()}
                self.announced[name] = await self.lan.announce(type_, name, port, strings)
            case {"do": "update", "name": name, "port": port, "txt": txt}:
                strings = {key.encode(): value.encode() for key, value in txt.items()}
                await self.announced[name].update(txt=strings, port=port)
            case {"do": "withdraw", "name": name}:
                await self.announced.pop(name).withdraw()
                say("withdrawn", name=name)
            case {"do": "browse", "type": type_}:
                self.group.create_task(show(self.lan, type_))
                say("browsing")
            case {"do": "watch", "slot": slot}:
                self.group.create_task(take(self.mailbox, slot))
                say("watching", slot=slot)
            case {"do": "put", "slot": slot, "data": data}:
                self.put[slot] = await self.mailbox.put(slot, base64.b64decode(data))
            case {"do": "tell"}:
                names = [one.name for one in self.lan.interfaces]
                say("told", problem=self.lan.problem, interfaces=names, rss_kib=rss_kib())


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with asyncio.TaskGroup() as group, Lan() as lan:
        speech = Speech(lan, group)
        say("ready", problem=lan.problem)
        while line := await reader.readline():
            await speech.do(json.loads(line))


if __name__ == "__main__":
    asyncio.run(main(), debug=True)
