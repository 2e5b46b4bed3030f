"""`p2psync id [--new]`: prints this device's id, or makes it a new device."""

from __future__ import annotations

import click

from p2psync.agent import lock
from p2psync.cli.app import App, option, pass_app, shared
from p2psync.errors import ExitCode


@click.command(name="id")
@option("--new", is_flag=True, help="Take a new key: for a machine that was copied.")
@shared
@pass_app
def command(app: App, new: bool) -> int:
    """Print this device's id.

    With --new the device takes a new key and is a stranger to those it was paired with: right
    for the copy of a machine, which would else pretend to be the original.
    """
    # the keys bring in cryptography
    from p2psync.identity import keys

    places = app.places
    places.create()
    if new:
        with lock.held(places.lock):
            identity = keys.replace(places.keys)
    else:
        identity = keys.load_or_create(places.keys)
    app.output.data(str(identity.device))
    app.output.fields({"type": "id", "device": str(identity.device)})
    return app.output.result(ExitCode.DONE)
