"""The systemd units: what they say, and that systemd takes them."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from p2psync.agent import service, spawn
from p2psync.agent.service import Service
from p2psync.config.places import Places
from p2psync.errors import UserError
from tests.support.require import require

ROOT = pwd.getpwuid(0)


def verify(unit: Service, directory: Path) -> str:
    """Return what systemd says against the unit."""
    file = directory / unit.name
    file.write_text(unit.text)
    user = [] if unit.of_system else ["--user"]
    done = subprocess.run(
        ["systemd-analyze", *user, "verify", str(file)],
        env=dict(os.environ, XDG_RUNTIME_DIR=str(directory)),
        capture_output=True,
        text=True,
        check=False,
    )
    about = [line for line in done.stderr.splitlines() if unit.name in line]
    return "\n".join(about) + ("" if not done.returncode else f" ({done.returncode})")


@pytest.fixture(params=["/home/a/.local/share/p2psync", '/srv/my "home" 100%$x'])
def places(request: pytest.FixtureRequest) -> Places:
    return Places(Path(request.param))


def test_systemd_takes_the_user_unit(places: Places, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    require("systemd")

    assert verify(service.user_service(places, {}), tmp_path) == ""


def test_systemd_takes_the_system_unit(places: Places, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say."""
    require("systemd")

    assert verify(service.system_service(places, ROOT, [b"/srv/a b"]), tmp_path) == ""


def test_the_user_unit_waits_watches_and_restarts() -> None:
    """Type=notify with a watchdog, absolute paths, the home said."""
    unit = service.user_service(Places(Path("/h/p2psync")), {"XDG_CONFIG_HOME": "/c"})

    assert unit.file == Path("/c/systemd/user/p2psync.service")
    lines = unit.text.splitlines()
    assert "Type=notify" in lines
    assert "WatchdogSec=60" in lines
    assert "Restart=on-failure" in lines
    assert "NoNewPrivileges=yes" in lines
    assert "Environment=P2PSYNC_HOME=/h/p2psync" in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert start.startswith("ExecStart=/")
    assert start.endswith("p2psync agent")
    assert "WantedBy=default.target" in lines


def test_i17_the_system_unit_runs_as_the_user_and_writes_where_it_must() -> None:
    """User=, a read-only system, and the exceptions: the user's home, ours, the folders."""
    user = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/home/alice", "/bin/sh"))
    places = Places(Path("/srv/p2psync"))

    lines = service.system_service(places, user, [b"/mnt/my photos"]).text.splitlines()

    assert "User=alice" in lines
    assert "ProtectSystem=strict" in lines
    assert "NoNewPrivileges=yes" in lines
    assert "ReadWritePaths=-/home/alice" in lines
    assert "ReadWritePaths=-/srv/p2psync" in lines
    assert 'ReadWritePaths="-/mnt/my photos"' in lines


def test_two_homes_have_two_units() -> None:
    """A second device on the same machine does not overwrite the first one's unit."""
    names = {
        service.user_service(Places(Path(home)), {}).name
        for home in ("/h/p2psync", "/h/second one")
    }

    assert names == {"p2psync.service", "p2psync-second-one.service"}


def fake_tools(directory: Path, *failing: str) -> str:
    """Make a systemctl and loginctl that note how they were called; some calls fail."""
    for tool in ("systemctl", "loginctl"):
        script = directory / tool
        script.write_text(
            f'#!/bin/sh\necho "{tool} $* ${{XDG_RUNTIME_DIR-}}" >> {directory}/calls\n'
            + "".join(f'case "{tool} $*" in *{one}*) exit 1;; esac\n' for one in failing)
        )
        script.chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


@pytest.fixture
def user_unit(tmp_path: Path) -> Service:
    return service.user_service(
        Places(tmp_path / "p2psync"), {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    )


def test_install_enables_the_unit_and_lingering(
    user_unit: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it without a session bus: the runtime directory is said."""
    monkeypatch.setenv("PATH", fake_tools(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)

    left = service.install(user_unit, Places(tmp_path / "p2psync"))

    run = f"/run/user/{os.geteuid()}"
    user = user_unit.user.pw_name
    assert left == []
    assert user_unit.file.read_text() == user_unit.text
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"loginctl enable-linger {user} {run}",
        f"systemctl --user daemon-reload {run}",
        f"systemctl --user enable --now p2psync.service {run}",
    ]


def test_what_install_may_not_do_is_told_as_commands(
    user_unit: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lingering needs permission on some systems; the rest is done all the same."""
    monkeypatch.setenv("PATH", fake_tools(tmp_path, "linger"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    left = service.install(user_unit, Places(tmp_path / "p2psync"))

    assert left == [f"sudo loginctl enable-linger {user_unit.user.pw_name}"]
    assert "enable --now" in (tmp_path / "calls").read_text()


def test_without_systemd_every_command_is_told(
    user_unit: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can be copied into a shell as they are, over SSH too."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    left = service.install(user_unit, Places(tmp_path / "p2psync"))

    uid = os.geteuid()
    assert left[-1] == (
        f"XDG_RUNTIME_DIR=/run/user/{uid} systemctl --user enable --now p2psync.service"
    )
    assert len(left) == 3


def test_uninstall_removes_the_unit(
    user_unit: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended, disabled and gone; a second time there is nothing to remove."""
    monkeypatch.setenv("PATH", fake_tools(tmp_path))
    service.install(user_unit, Places(tmp_path / "p2psync"))

    assert service.uninstall(user_unit) == []
    assert not user_unit.file.exists()
    with pytest.raises(UserError, match="nothing to remove"):
        service.uninstall(user_unit)


def test_i17_a_program_the_user_cannot_reach_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A unit that could never start is not installed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    python = closed / "python"
    python.touch()
    monkeypatch.setattr(spawn, "command", lambda: [str(python)])
    user = pwd.struct_passwd(("alice", "x", 4_000_000, 1000, "", "/home/alice", "/bin/sh"))

    with pytest.raises(UserError, match="alice cannot run"):
        service.check_reachable(user)


def test_an_unknown_user_is_named() -> None:
    """Before anything is written."""
    with pytest.raises(UserError, match="There is no user 'nobody-like-that'"):
        service.user_named("nobody-like-that")
