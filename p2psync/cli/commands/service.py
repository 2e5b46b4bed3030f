"""`p2psync service install|uninstall|status`: has the system start the agent at boot."""

from __future__ import annotations

import os

import click

from p2psync.agent import service as units
from p2psync.cli.app import App, option, pass_app, shared
from p2psync.cli.output import printable
from p2psync.config import places
from p2psync.config.places import Places
from p2psync.control.client import Client
from p2psync.control.messages import GetStatus, Status
from p2psync.errors import ExitCode, UserError

for_user = option("--user", metavar="NAME", help="As root: the user the agent runs as.")


@click.group(name="service", invoke_without_command=True)
@click.pass_context
def command(context: click.Context) -> None:
    """Have systemd start the agent at boot, and again should it end.

    As root this makes a system unit that runs as the user named by --user.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@command.command()
@for_user
@shared
@pass_app
def install(app: App, user: str | None) -> int:
    """Install the unit, start it now and at every boot."""
    service, home = _service(app, user)
    left = units.install(service, home)
    app.output.say(f"Wrote {service.file}")
    if left:
        return _left(app, "The agent does not start at boot yet.", left)
    app.output.say(f"The agent runs as {service.name}, now and after every boot.")
    return app.output.result(ExitCode.DONE)


@command.command()
@for_user
@shared
@pass_app
def uninstall(app: App, user: str | None) -> int:
    """Remove the unit; keys, folders and files stay."""
    service, _ = _service(app, user)
    left = units.uninstall(service)
    app.output.say(f"Removed {service.file}")
    if left:
        return _left(app, "The agent may still run.", left)
    return app.output.result(ExitCode.DONE)


@command.command()
@for_user
@shared
@pass_app
def status(app: App, user: str | None) -> int:
    """Tell whether the unit is installed, enabled and running."""
    service, _ = _service(app, user)
    told = units.state(service)
    app.output.data("\n".join(f"{name}: {value}" for name, value in told.items()))
    fields = {name.replace(" ", "_"): value for name, value in told.items()}
    app.output.fields({"type": "service", "unit": str(service.file), **fields})
    return app.output.result(ExitCode.DONE)


def _left(app: App, what: str, commands: list[str]) -> int:
    app.output.say("Not everything could be done from here. Please run:")
    for line in commands:
        app.output.data(line)
        app.output.fields({"type": "command", "command": line})
    return app.output.result(ExitCode.SOME_FAILED, what)


def _service(app: App, user: str | None) -> tuple[units.Service, Places]:
    """Return the unit for whoever asks, and the home it is for."""
    if os.geteuid():
        if user is not None:
            raise UserError("Only root can install for another user: leave --user out.")
        return units.user_service(app.places, os.environ), app.places
    if user is None:
        example = os.environ.get("SUDO_USER", "alice")
        raise UserError(
            "As root, say which user's agent it is: "
            f"p2psync service install --user {printable(example)} "
            "(--user root only if the folders belong to root)."
        )
    account = units.user_named(user)
    units.check_reachable(account)
    home = app.places if app.home else places.of_user(account.pw_dir)
    return units.system_service(home, account, _roots(home)), home


def _roots(home: Places) -> tuple[bytes, ...]:
    """Return the roots of the folders that are shared already, if the agent can be asked."""
    try:
        with Client(home.socket) as client:
            found = [r for r in client.request(GetStatus()) if isinstance(r, Status)]
    except UserError:
        return ()
    return tuple(folder.path for one in found for folder in one.folders)
