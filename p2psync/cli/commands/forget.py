"""`p2psync forget DEVICE`: cuts a device off."""

from __future__ import annotations

import click

from p2psync.cli.app import App, absolute, option, pass_app, shared
from p2psync.control.messages import Event, Forget, Forgotten


@click.command(name="forget")
@click.argument("device")
@option("--folder", type=absolute, metavar="PATH", help="Only from this folder.")
@shared
@pass_app
def command(app: App, device: str, folder: bytes | None) -> int:
    """Cut DEVICE (its name, its id or the first letters of it) off, at once and everywhere.

    What it has already stays with it; it gets nothing more and changes nothing more.
    """

    def show(reply: Event) -> None:
        if isinstance(reply, Forgotten):
            app.output.event(reply)
            app.output.say(f"{reply.device} is cut off. Only a new code lets it in again.")

    result = app.converse(Forget(device, folder), show)
    return app.output.result(result.exit, result.error)
