"""`p2psync share PATH`: puts up a code and waits until a device has joined and all is equal."""

from __future__ import annotations

import os
import shlex

import click

from p2psync.cli.app import App, absolute, option, pass_app, shared
from p2psync.cli.follow import Follower
from p2psync.cli.output import printable
from p2psync.control.messages import Share
from p2psync.errors import UserError


@click.command(name="share")
@click.argument("path", type=absolute)
@option("--name", metavar="NAME", help="What the folder is called; its own name by default.")
@shared
@pass_app
def command(app: App, path: bytes, name: str | None) -> int:
    """Share the folder at PATH: print a code for the other device.

    Waits until a device has joined and both are up to date. Ctrl-C ends the waiting, not the
    sharing. A folder that is shared already gets a new code.
    """
    shown = printable(path)
    if not os.path.isdir(path):
        raise UserError(
            f"{shown} is a file; only whole folders can be shared."
            if os.path.exists(path)
            else f"There is no folder {shown}. Make it first: mkdir {shlex.quote(shown)}"
        )
    app.start_agent()
    follower = Follower(app, heading=f"Sharing {shown}")

    def interrupted() -> str:
        if follower.paired:
            return "Not waiting any longer. Syncing goes on; `p2psync status` shows it."
        return (
            "The code is withdrawn; the folder stays ready. "
            f"`p2psync share {shlex.quote(shown)}` prints a new code."
        )

    return follower.run(Share(path, name), interrupted)
