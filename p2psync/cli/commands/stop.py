"""`p2psync stop`: ends the agent."""

from __future__ import annotations

import click

from p2psync.agent import spawn
from p2psync.cli.app import App, pass_app, shared
from p2psync.errors import ExitCode


@click.command(name="stop")
@shared
@pass_app
def command(app: App) -> int:
    """End the agent; returns when its process is gone, also if none ran."""
    stopped = spawn.stop(app.places)
    app.output.say("The agent has ended." if stopped else "No agent was running.")
    return app.output.result(ExitCode.DONE)
