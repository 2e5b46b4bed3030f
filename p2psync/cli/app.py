"""What every command shares: the global options, in any place, and the way to the agent."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from click.core import ParameterSource

from p2psync.agent import spawn
from p2psync.cli.output import Output
from p2psync.config import places
from p2psync.config.places import Places
from p2psync.control.client import Client
from p2psync.control.messages import Event, Question, Request, Result, Started

PREFIX: Final = "P2PSYNC_"

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class App:
    """The global options, as said before or after the command."""

    home: str | None = None
    json: bool = False
    verbose: bool = False

    @property
    def places(self) -> Places:
        """Where this home's things are."""
        return places.find(self.home, os.environ)

    @property
    def output(self) -> Output:
        """How to print."""
        return Output(self.json)

    def start_agent(self) -> bool:
        """Make sure the agent runs; return whether it was started now."""
        started = spawn.start(self.places)
        if started and os.geteuid() == 0:
            self.output.say(
                "The agent runs as root; files it makes get the owner of their folder."
            )
        return started

    def converse(
        self,
        request: Request,
        show: Callable[[Event], None] = lambda _: None,
        agree: Callable[[Question], bool] = lambda _: False,
    ) -> Result:
        """Have the agent carry out a request and return how it ended.

        Each reply is given to `show`; `agree` answers questions.
        """
        with Client(self.places.socket) as client:
            for reply in client.request(request):
                match reply:
                    case Result():
                        return reply
                    case Question():
                        client.answer(agree(reply))
                    case Started():
                        pass
                    case _:
                        show(reply)
        raise AssertionError("a conversation ends with a Result")


pass_app = click.make_pass_decorator(App)


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Declare an option together with its environment variable, `P2PSYNC_<NAME>`."""
    long = next(name for name in names if name.startswith("--"))
    variable = PREFIX + long.removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **settings)


def shared(function: F) -> F:
    """Give a command the global options too, for those who type them last."""
    for declare in (
        option(
            "--home",
            metavar="DIR",
            expose_value=False,
            callback=_remember,
            help="Be the device whose keys and indexes are in DIR.",
        ),
        option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Print one JSON object per line.",
        ),
        option(
            "-v",
            "--verbose",
            is_flag=True,
            expose_value=False,
            callback=_remember,
            help="Say more when something goes wrong.",
        ),
    ):
        function = declare(function)
    return function


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    app = context.ensure_object(App)
    name = parameter.name or ""
    typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    # what was typed before the command beats what the environment says after it
    if value and (typed or not getattr(app, name)):
        setattr(app, name, value)


def absolute(value: str | bytes) -> bytes:
    """Return a typed path as the disk has it, absolute; links are left alone.

    Raises:
        ValueError: it is empty.
    """
    raw = os.fsencode(value)
    if not raw or b"\0" in raw:
        raise ValueError("a path cannot be empty")
    return os.path.abspath(raw)
