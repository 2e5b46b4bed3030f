"""`p2psync leave PATH`: stops syncing a folder; its files stay."""

from __future__ import annotations

import click

from p2psync.cli.app import App, absolute, option, pass_app, shared
from p2psync.cli.output import printable
from p2psync.control.messages import Leave
from p2psync.errors import ExitCode


@click.command(name="leave")
@click.argument("path", type=absolute)
@option("--purge", is_flag=True, help="Remove .p2psync/ as well, with its history.")
@shared
@pass_app
def command(app: App, path: bytes, purge: bool) -> int:
    """Stop syncing the folder at PATH on this device. Its files stay where they are."""
    result = app.converse(Leave(path, purge))
    if result.exit == ExitCode.DONE:
        app.output.say(f"{printable(path)} is not synced any longer; its files stay.")
    return app.output.result(result.exit, result.error)
