"""Starts the agent in the background and ends it, from the command line.

The agent gets a session of its own, so that it survives the terminal, and no way back to it:
its input is empty and what it writes to stderr goes to a file, which is shown when it fails to
start. Nothing of the caller's environment that is meant for one command is handed down.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import p2psync
from p2psync.agent import lock
from p2psync.config.places import HOME_VARIABLE, Places
from p2psync.control.client import Client, NoAgentError
from p2psync.control.messages import Ping, Result, Stop
from p2psync.errors import ExitCode, UserError

BACKGROUND_VARIABLE: Final = "P2PSYNC_BACKGROUND"
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
KILL_TIMEOUT_S: Final = 5.0
BURIAL_TIMEOUT_S: Final = 0.25
NAP_S: Final = 0.01
LAST_WORDS: Final = 2_000  # characters

NOT_HANDED_DOWN: Final = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "INVOCATION_ID", "P2PSYNC_")


def command() -> list[str]:
    """Return the agent's command line; the same program as this one, whatever the directory."""
    return [sys.executable, "-P", "-m", "p2psync", "agent"]


def module_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the environment needs so that `command` finds the program when run."""
    root = Path(p2psync.__file__).resolve().parent.parent
    if root.name in ("site-packages", "dist-packages"):
        return {}
    others = [
        part for part in environ.get("PYTHONPATH", "").split(os.pathsep) if part != str(root)
    ]
    return {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, others)])}


def environment(places: Places, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the agent's environment: the caller's without what was meant for one command."""
    kept = {
        name: value for name, value in environ.items() if not name.startswith(NOT_HANDED_DOWN)
    }
    return (
        kept
        | module_path(environ)
        | {HOME_VARIABLE: str(places.home), BACKGROUND_VARIABLE: "1"}
    )


def answering(places: Places) -> int | None:
    """Return the pid of the agent that runs for this home and answers, None if none runs.

    Raises:
        UserError: one runs and does not answer.
    """
    try:
        with Client(places.socket) as client:
            for _ in client.request(Ping()):
                pass
            return client.agent_pid
    except NoAgentError:
        return None


def start(places: Places) -> bool:
    """Make sure an agent runs in the background; return whether it was started now.

    Returns when the agent answers. Of several callers at the same time one starts it, and none
    leaves another one behind that still tries.

    Raises:
        UserError: it cannot be started, with the reason it gave.
    """
    if answering(places) is not None:
        return False
    places.create()
    deadline = time.monotonic() + START_TIMEOUT_S
    with contextlib.closing(_launch(places)) as child:
        while not child.ended(NAP_S) and time.monotonic() < deadline:
            if answering(places) == child.pid:
                return True
    # it ended: perhaps because another one is just starting
    while lock.holder(places.lock) is not None and time.monotonic() < deadline:
        if answering(places) is not None:
            return False
        time.sleep(NAP_S)
    raise UserError(_why_not(places), ExitCode.NO_AGENT)


def stop(places: Places) -> bool:
    """End the agent of this home and wait until its process is gone; False if none ran.

    Raises:
        UserError: it cannot be ended.
    """
    pid = _ask_to_stop(places)
    if pid is None:
        return False
    for patience_s, number in ((STOP_TIMEOUT_S, signal.SIGKILL), (KILL_TIMEOUT_S, None)):
        if _gone(places, pid, patience_s):
            return True
        if number is not None:
            _signal(pid, number)
    raise UserError(f"The agent (process {pid}) cannot be ended.", ExitCode.NO_AGENT)


class _Child:
    """The agent just launched: it holds the other end of a pipe for as long as it lives."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor

    def ended(self, patience_s: float) -> bool:
        return bool(select.select([self._descriptor], [], [], patience_s)[0])

    def close(self) -> None:
        os.close(self._descriptor)


def _launch(places: Places) -> _Child:
    ours, theirs = os.pipe()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    words = os.open(places.last_words, flags, 0o600)
    try:
        # the shell leads the new session and is gone at once: the agent, its child, can
        # neither get a terminal nor become a zombie of ours
        shell = subprocess.run(  # noqa: S603 - our own program
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command()],
            check=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            cwd="/",
            env=environment(places, os.environ),
            pass_fds=(theirs,),
        )
    finally:
        os.close(theirs)
        os.close(words)
    return _Child(int(shell.stdout), ours)


def _why_not(places: Places) -> str:
    words = places.last_words.read_text(errors="backslashreplace")[-LAST_WORDS:].strip()
    said = words.splitlines()[-1].removeprefix("Error: ") if words else "it said nothing"
    if words.startswith("Error: "):
        return said
    return f"The agent could not be started: {said}. More in {places.last_words}."


def _ask_to_stop(places: Places) -> int | None:
    """Ask politely, over the socket or by signal; return the agent's pid, None: none runs."""
    try:
        with Client(places.socket) as client:
            pid = client.agent_pid
            with contextlib.suppress(UserError):
                if Result(0) in client.request(Stop()):
                    return pid
    except NoAgentError:
        holder = lock.holder(places.lock)
        if holder is None:
            return None
        pid = holder
    if pid <= 0:
        raise UserError(
            "The agent of this home runs where it cannot be seen from here (another "
            "container?). End it there.",
            ExitCode.NO_AGENT,
        )
    _signal(pid, signal.SIGTERM)
    return pid


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _gone(places: Places, pid: int, patience_s: float) -> bool:
    """Wait until the home's lock is free and the process has ended."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if lock.holder(places.lock) is None and not _runs(pid):
            _await_burial(pid)
            return True
        time.sleep(NAP_S)
    return False


def _runs(pid: int) -> bool:
    """Return whether the process runs; one that waits to be buried does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[:1] != [b"Z"]


def _await_burial(pid: int) -> None:
    """Give whoever must bury the process a moment, so that its pid is free; not all do."""
    deadline = time.monotonic() + BURIAL_TIMEOUT_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(NAP_S)
