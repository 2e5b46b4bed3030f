"""Follows what `share`, `accept` and `wait` have started until it ends, for a person."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import click

from p2psync.cli import text
from p2psync.cli.app import App
from p2psync.cli.output import printable
from p2psync.cli.progress import Meter
from p2psync.control.messages import (
    Burned,
    Code,
    Event,
    Offer,
    Paired,
    Progress,
    Question,
    Request,
    State,
)
from p2psync.errors import ExitCode

QUIET_S: Final = 2.0
WAITING: Final = "waiting for the other device"
ON_ITS_OWN = "It stays in sync in the background; `p2psync status` shows it."


class Follower:
    """Shows the events of one request and ends with its result."""

    def __init__(self, app: App, *, heading: str = "", patience: str = "") -> None:
        """Follow on behalf of this command.

        Args:
            app: the command's global options.
            heading: said above the first code.
            patience: said when nothing has happened for two seconds.
        """
        self._heading = heading
        self._app = app
        self._output = app.output
        self._patience = threading.Timer(QUIET_S, self._be_patient, [patience])
        self._patience.daemon = True
        self._meter = Meter(self._output)
        self._began = time.monotonic()
        self._state = ""
        self._offered: Offer | None = None
        self.paired = False
        """Whether a device has joined: from then on nothing is withdrawn by leaving."""
        self.offered = False
        """Whether another device has shown what it shares: its code is used then."""

    def run(
        self,
        request: Request,
        interrupted: Callable[[], str],
        agree: Callable[[Question], bool] = lambda _: False,
    ) -> int:
        """Have the request carried out; return the exit code, its sentence being said.

        interrupted: what to say after Ctrl-C, asked for only then.
        """
        self._patience.start()
        try:
            result = self._app.converse(
                request, self._show, lambda question: self._ask(question, agree)
            )
        except (KeyboardInterrupt, click.Abort) as error:
            self._meter.close()
            if isinstance(error, click.Abort):
                self._output.say()  # the cursor stands behind a question
            return self._output.result(ExitCode.INTERRUPTED, interrupted())
        finally:
            self._patience.cancel()
            self._meter.close()
        if result.exit == ExitCode.DONE:
            took = text.duration(time.monotonic() - self._began)
            self._output.say(f"Up to date in {took}. {ON_ITS_OWN}")
        return self._output.result(result.exit, result.error)

    def _ask(self, question: Question, agree: Callable[[Question], bool]) -> bool:
        if question.offer != self._offered:
            self._show(question.offer)
        return agree(question)

    def _show(self, reply: Event) -> None:
        # first: whoever has read the line may interrupt us at once
        self.paired = self.paired or isinstance(reply, Paired)
        self.offered = self.offered or isinstance(reply, Offer)
        self._patience.cancel()
        self._output.event(reply)
        if isinstance(reply, Progress):
            self._meter.show(reply)
            return
        self._meter.close()
        match reply:
            case Code():
                self._show_code(reply)
            case Burned():
                whose = ", ".join(map(printable, reply.addresses)) or "an unknown address"
                self._output.say(
                    f"Somebody at {whose} guessed at the code too often; it is void now."
                )
            case Offer():
                self._offered = reply
                self._output.say(text.offer(reply))
            case Paired():
                self._began = time.monotonic()
                self._output.say(f"Paired with {text.device(reply.name, reply.device)}.")
            case State() if reply.state != self._state:
                self._state = reply.state
                if reply.state != "up-to-date":  # the last line says that
                    said = (
                        WAITING if reply.state == "waiting" else reply.state.replace("-", " ")
                    )
                    self._output.say(f"{printable(reply.path)}: {said}")

    def _be_patient(self, sentence: str) -> None:
        if sentence:
            self._output.say(sentence)

    def _show_code(self, code: Code) -> None:
        if self._heading:
            self._output.say(self._heading)
            self._heading = ""
        self._output.say(f"The code, good for one device and {text.duration(code.expires_s)}:")
        self._output.data(code.code)
        self._output.say(
            f"On the other device:   p2psync accept {code.code}\n"
            "Waiting for it. Ctrl-C ends the waiting, not the sharing."
        )
