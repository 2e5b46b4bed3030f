"""Follows what `share`, `accept` and `wait` have started until it ends, for a person."""

from __future__ import annotations

import time
from collections.abc import Callable

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

ON_ITS_OWN = "It stays in sync in the background; `p2psync status` shows it."


class Follower:
    """Shows the events of one request and ends with its result."""

    def __init__(self, app: App) -> None:
        """Follow on behalf of this command."""
        self._app = app
        self._output = app.output
        self._meter = Meter(self._output)
        self._began = time.monotonic()
        self._state = ""
        self._offered: Offer | None = None
        self.paired = False
        """Whether a device has joined: from then on nothing is withdrawn by leaving."""

    def run(
        self,
        request: Request,
        interrupted: Callable[[], str],
        agree: Callable[[Question], bool] = lambda _: False,
    ) -> int:
        """Have the request carried out; return the exit code, its sentence being said.

        interrupted: what to say after Ctrl-C, asked for only then.
        """
        try:
            result = self._app.converse(
                request, self._show, lambda question: self._ask(question, agree)
            )
        except KeyboardInterrupt:
            self._meter.close()
            return self._output.result(ExitCode.INTERRUPTED, interrupted())
        finally:
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
                    said = reply.state.replace("-", " ")
                    self._output.say(f"{printable(reply.path)}: {said}")

    def _show_code(self, code: Code) -> None:
        self._output.say(f"The code, good for one device and {text.duration(code.expires_s)}:")
        self._output.data(code.code)
        self._output.say(
            f"On the other device:   p2psync accept {code.code}\n"
            "Waiting for it. Ctrl-C ends the waiting, not the sharing."
        )
