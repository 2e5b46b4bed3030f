"""`p2psync devices`: lists the paired devices."""

from __future__ import annotations

import click

from p2psync.cli import text
from p2psync.cli.app import App, pass_app, shared
from p2psync.control.messages import Device, Event, GetDevices
from p2psync.errors import ExitCode


@click.command(name="devices")
@shared
@pass_app
def command(app: App) -> int:
    """List the paired devices and the folders each has with this one."""
    listed: list[Device] = []

    def show(reply: Event) -> None:
        if isinstance(reply, Device):
            app.output.event(reply)
            listed.append(reply)

    result = app.converse(GetDevices(), show)
    if result.exit == ExitCode.DONE:
        app.output.data(text.devices(listed))
    return app.output.result(result.exit, result.error)
