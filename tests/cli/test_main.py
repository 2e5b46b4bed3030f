"""The command line as a whole: help, options, usage errors, what it imports."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from p2psync.cli.app import App
from p2psync.cli.commands import COMMANDS
from p2psync.cli.main import cli
from tests.cli.conftest import Shell
from tests.support.engine import Engine


def options() -> list[click.Option]:
    found: list[click.Option] = []
    pending: list[click.Command] = [cli]
    pending += [importlib.import_module(f"p2psync.cli.commands.{c}").command for c in COMMANDS]
    while pending:
        command = pending.pop()
        found += [p for p in command.params if isinstance(p, click.Option)]
        if command is not cli and isinstance(command, click.Group):
            pending += command.commands.values()
    return found


def test_every_option_has_its_variable() -> None:
    """--some-thing is P2PSYNC_SOME_THING, except for --help and --version."""
    for option in options():
        long = next(name for name in option.opts if name.startswith("--"))
        if long in ("--help", "--version"):
            continue
        assert option.envvar == "P2PSYNC_" + long[2:].upper().replace("-", "_")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(name: str) -> None:
    """Each listed command exists under its name and explains itself."""
    done = CliRunner().invoke(cli, [name, "--help"], obj=App())

    assert done.exit_code == 0
    assert f"{name} [OPTIONS]" in done.output


def test_help_lists_every_command_in_order() -> None:
    """The order is the order in which one meets them."""
    done = CliRunner().invoke(cli, ["--help"], obj=App())

    places = [done.output.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_alone_it_shows_the_help(shell: Shell) -> None:
    """Bare `p2psync` is a question, not an error."""
    done = shell()

    assert (done.exit, done.err) == (0, "")
    assert "p2psync share" in done.out


def test_version(shell: Shell) -> None:
    """One line, for bug reports."""
    assert shell("--version").out == "p2psync 0.1.0\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("bogus",), "See p2psync --help"),
        (("acept",), "Did you mean: accept"),
        (("share",), "Missing argument"),
        (("share", "--bogus", "."), "No such option"),
        (("wait", "--timeout", "soon"), "not a valid float"),
        (("share", ""), "PATH"),
        ((".",), "Did you mean: p2psync share ."),
    ],
)
def test_wrong_usage_is_two(shell: Shell, args: tuple[str, ...], said: str) -> None:
    """Exit code 2 with a sentence; with --json a result with that sentence."""
    done = shell(*args)
    as_json = shell(*args, "--json")

    assert (done.exit, done.out) == (2, "")
    assert said in done.err
    assert as_json.exit == 2
    assert as_json.lines[-1]["type"] == "result"
    assert said in as_json.lines[-1]["error"]


def test_a_home_that_cannot_be_made_ends_with_eight(shell: Shell) -> None:
    """The sentence says what to do."""
    (shell.directory / "file").write_text("")

    done = shell("--home", "file/home", "start")

    assert done.exit == 8
    assert "Choose another place" in done.err


def test_status_does_not_import_what_it_does_not_need(shell: Shell, engine: Engine) -> None:
    """The quick commands stay quick: no WebRTC, no mDNS, no engine, no asyncio, no colours."""
    program = (
        "import sys\n"
        "from p2psync.cli.main import main\n"
        "code = main(['status'])\n"
        "heavy = ['aiortc', 'av', 'zeroconf', 'watchfiles', 'cryptography', 'uvloop', 'rich',\n"
        "         'asyncio', 'sqlite3', 'p2psync.engine', 'p2psync.net', 'p2psync.store',\n"
        "         'p2psync.fs', 'p2psync.identity', 'p2psync.agent.main', 'discovery', 're2']\n"
        "print([name for name in heavy if name in sys.modules], code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=shell.environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[] 0"
