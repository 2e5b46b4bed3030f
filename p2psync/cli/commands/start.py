"""`p2psync start`: starts the agent in the background."""

from __future__ import annotations

import click

from p2psync.cli.app import App, pass_app, shared
from p2psync.errors import ExitCode


@click.command(name="start")
@shared
@pass_app
def command(app: App) -> int:
    """Start the agent in the background; returns when it answers, also if it ran already."""
    started = app.start_agent()
    app.output.say("The agent runs." if started else "The agent runs already.")
    return app.output.result(ExitCode.DONE)
