"""The command line: finds the command, runs it, and turns what went wrong into a sentence."""

from __future__ import annotations

import difflib
import importlib
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Final

import click

from p2psync import __version__
from p2psync.cli.app import PREFIX, App, shared
from p2psync.cli.commands import COMMANDS
from p2psync.cli.output import Output
from p2psync.errors import ExitCode, P2PSyncError, UserError

HELP: Final = """Keep folders equal on any number of devices.

  \b
  p2psync share ./photos      prints a code
  p2psync accept CODE         on the other device, is all that is ever typed

Every option has an environment variable: --home is P2PSYNC_HOME."""


class Commands(click.Group):
    """Imports a command only when it is asked for, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the list."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"p2psync.cli.commands.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing a single command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Guess what somebody meant who typed a directory, or something like a command."""
        typed = args[0] if args else ""
        if typed and typed not in COMMANDS and not typed.startswith("-"):
            said = f"There is no command {typed!r}. "
            if os.path.isdir(typed):
                ctx.fail(f"{said}Did you mean: p2psync share {shlex.quote(typed)}")
            close = difflib.get_close_matches(typed, COMMANDS, n=1)
            ctx.fail(said + (f"Did you mean: {close[0]}" if close else "See p2psync --help"))
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    help=HELP,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@shared
@click.pass_context
def cli(context: click.Context) -> None:
    """Show the help when there is no command."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    app = App()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        outcome = cli.main(args, prog_name="p2psync", obj=app, standalone_mode=False)
        code = outcome if isinstance(outcome, int) else ExitCode.DONE
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error, click.Abort):
            _output(app, args).say()  # the cursor stands behind a question
        code = _output(app, args).result(ExitCode.INTERRUPTED, "Interrupted.")
    except BrokenPipeError:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        code = _told(error, app, args)
    _flush()
    return int(code)


def _told(error: Exception, app: App, args: list[str]) -> int:
    output = _output(app, args)
    if app.verbose:
        traceback.print_exception(error)
    match error:
        case click.UsageError():
            if error.ctx is not None:
                output.say(error.ctx.get_usage())
            return output.result(ExitCode.USAGE, error.format_message())
        case click.ClickException():
            return output.result(ExitCode.USAGE, error.format_message())
        case UserError():
            return output.result(error.exit_code, error.message)
        case P2PSyncError():
            return output.result(ExitCode.SOME_FAILED, str(error))
        case _:
            if not app.verbose:
                traceback.print_exception(error)
            return output.result(ExitCode.SOME_FAILED, f"This is a bug: {error!r}")


def _output(app: App, args: list[str]) -> Output:
    """Return how to print; what could not be parsed may still have said --json."""
    return Output(app.json or "--json" in args or bool(os.environ.get(f"{PREFIX}JSON")))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads any more: nothing to say at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
