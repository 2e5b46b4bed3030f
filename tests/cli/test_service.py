"""`p2psync service`: who may ask for what."""

from __future__ import annotations

from tests.cli.conftest import Shell
from tests.support.require import require


def test_root_must_say_for_whom(shell: Shell) -> None:
    """Never root unless said: exit code 2 with the command to type."""
    require("root")

    done = shell("service", "install", SUDO_USER="alice")

    assert done.exit == 2
    assert "--user alice" in done.err


def test_an_unknown_user_is_refused(shell: Shell) -> None:
    """Before anything is written."""
    require("root")

    done = shell("service", "install", "--user", "nobody-like-that")

    assert done.exit == 2
    assert "There is no user" in done.err


def test_the_state_of_the_unit_is_told(shell: Shell) -> None:
    """Also where there is no systemd at all."""
    require("root")
    done = shell("service", "status", "--user", "root", PATH="/nowhere")
    as_json = shell("service", "status", "--user", "root", "--json", PATH="/nowhere")

    assert done.exit == 0
    assert "installed: no" in done.out
    assert as_json.lines[0]["type"] == "service"
    assert as_json.lines[0]["installed"] == "no"


def test_nothing_to_remove_is_said(shell: Shell) -> None:
    """Removing what is not there harms nothing."""
    require("root")

    done = shell("service", "uninstall", "--user", "root", PATH="/nowhere")

    assert done.exit == 2
    assert "nothing to remove" in done.err
