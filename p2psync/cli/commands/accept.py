"""`p2psync accept [CODE] [PATH]`: takes the folder a code stands for."""

from __future__ import annotations

import os
import sys
from typing import Final

import click

from p2psync.cli import text
from p2psync.cli.app import PREFIX, App, absolute, option, pass_app, shared
from p2psync.cli.follow import Follower
from p2psync.cli.output import is_terminal
from p2psync.control.messages import Accept, Question
from p2psync.errors import UserError
from p2psync.protocol import words

CODE_VARIABLE: Final = PREFIX + "CODE"
TIMEOUT_S: Final = 30.0
LOOKING: Final = "Looking for the device that shows this code, for up to {} ..."


class SpokenCode(click.Command):
    """Takes a code's words also one by one, as they are when somebody reads them out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the words before anything is counted."""
        for start in range(len(args) - words.CODE_WORDS + 1):
            end = start + words.CODE_WORDS
            if all(word.isalpha() for word in args[start:end]):
                args = [*args[:start], "-".join(args[start:end]), *args[end:]]
                break
        return super().parse_args(ctx, args)


@click.command(name="accept", cls=SpokenCode)
@click.argument("code", required=False)
@click.argument("path", type=absolute, required=False)
@option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to look for the device that shows the code.",
)
@option("-y", "--yes", is_flag=True, help="Do not ask.")
@shared
@pass_app
def command(app: App, code: str | None, path: bytes | None, timeout: float, yes: bool) -> int:
    """Take the folder that CODE stands for, into PATH.

    PATH is ./<the folder's name> by default. It may hold files: equal ones are kept as they
    are, different ones become conflict copies. Without CODE, $P2PSYNC_CODE is taken, or the
    code is asked for. Returns when everything is here.
    """
    typed, path = _code_and_path(app, code, path)
    try:
        checked = str(words.parse(typed))
    except ValueError as error:
        raise UserError(f"This is no code: {error}") from error
    here = os.getcwdb()
    app.start_agent()
    follower = Follower(app, patience=LOOKING.format(text.duration(timeout)))

    def agree(question: Question) -> bool:
        shown = text.place(question.path, here)
        if yes:
            return True
        if app.json or not is_terminal():
            return not question.occupied
        if not question.occupied:
            return click.confirm(f"Take it, into {shown}?", default=True, err=True)
        app.output.say(
            f"{shown} holds files already: equal ones are kept, different ones become "
            "conflict copies, nothing is deleted."
        )
        return click.confirm("Use it?", default=False, err=True)

    def interrupted() -> str:
        if follower.paired:
            return "Not waiting any longer. Syncing goes on; `p2psync status` shows it."
        if follower.offered:
            return "Nothing was accepted. The code is used up: ask for a new one."
        return "Nothing was accepted."

    request = Accept(checked, path, here, timeout)
    return follower.run(request, interrupted, agree)


def _code_and_path(app: App, code: str | None, path: bytes | None) -> tuple[str, bytes | None]:
    """Find the code: typed, in the environment, or asked for. A lone argument may be PATH."""
    from_environment = os.environ.get(CODE_VARIABLE, "")
    if code and path is None and _is_path(code, bool(from_environment)):
        path = absolute(code)
        code = None
    return code or from_environment or _ask(app), path


def _is_path(argument: str, code_is_known: bool) -> bool:
    if os.sep in argument or argument.startswith((".", "~")):
        return True  # no code looks like that
    if not code_is_known:
        return False
    try:
        words.parse(argument)
    except ValueError:
        return True
    return False


def _ask(app: App) -> str:
    if app.json:
        raise UserError(f"Say the code: p2psync accept CODE, or set {CODE_VARIABLE}.")
    if is_terminal():
        answer: str = click.prompt("Code", err=True)
        return answer
    line = sys.stdin.readline().strip() if sys.stdin else ""
    if not line:
        raise UserError(f"Say the code: p2psync accept CODE, or set {CODE_VARIABLE}.")
    return line
