"""`p2psync status`: folders, peers and what is in the way. Starts nothing."""

from __future__ import annotations

import click

from p2psync import __version__
from p2psync.cli import text
from p2psync.cli.app import App, pass_app, shared
from p2psync.cli.output import plain
from p2psync.control.client import NoAgentError
from p2psync.control.messages import Event, GetStatus, Status
from p2psync.errors import ExitCode


@click.command(name="status")
@shared
@pass_app
def command(app: App) -> int:
    """Show folders, peers and what is in the way. Does not start the agent.

    With --json it is exactly one object.
    """
    seen: list[Status] = []

    def show(reply: Event) -> None:
        if isinstance(reply, Status):
            seen.append(reply)

    try:
        result = app.converse(GetStatus(), show)
    except NoAgentError:
        app.output.data(text.no_agent())
        app.output.fields(_line("stopped", Status("", "", __version__)))
        return ExitCode.DONE
    if result.exit != ExitCode.DONE:
        return app.output.result(result.exit, result.error)
    app.output.data(text.status(seen[0]))
    app.output.fields(_line("running", seen[0]))
    return ExitCode.DONE


def _line(agent: str, status: Status) -> dict[str, object]:
    fields = plain(status)
    device = fields.pop("device") or None
    return {"type": fields.pop("type"), "agent": agent, "device": device, **fields}
