"""`p2psync wait [PATH]`: returns when everything is in sync."""

from __future__ import annotations

import click

from p2psync.cli.app import App, absolute, option, pass_app, shared
from p2psync.cli.follow import Follower
from p2psync.control.messages import Wait


@click.command(name="wait")
@click.argument("path", type=absolute, required=False)
@option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up after this time, with exit code 6.",
)
@shared
@pass_app
def command(app: App, path: bytes | None, timeout: float | None) -> int:
    """Wait until the folder at PATH (or every folder) is in sync.

    Every change made before the call counts. In sync means: this device and every connected
    one have everything, and at least one is connected.
    """
    app.start_agent()
    return Follower(app).run(
        Wait(path, timeout), lambda: "Not waiting any longer. Syncing goes on."
    )
