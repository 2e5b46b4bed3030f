"""`p2psync agent`: is the agent, in the foreground."""

from __future__ import annotations

import click

from p2psync.cli.app import App, option, pass_app, shared
from p2psync.errors import ExitCode


@click.command(name="agent")
@option("--background", is_flag=True, hidden=True, help="Log to the home's file.")
@shared
@pass_app
def command(app: App, background: bool) -> int:
    """Be the agent, in the foreground: for systemd, containers and the curious.

    Logs to stderr. SIGTERM ends it within five seconds, a second one at once.
    """
    # the agent's own modules: not for commands that only talk to it
    from p2psync.agent import main

    main.run(app.places, background=background, verbose=app.verbose)
    return ExitCode.DONE
