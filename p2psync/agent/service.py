"""Has systemd start the agent at boot: a user unit, or as root a system unit for one user.

What cannot be done from here (no session of systemd, not allowed) is returned as the exact
commands to type, never passed over: a headless machine without lingering would look fine until
its next boot.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2psync.agent import spawn
from p2psync.config.places import HOME_VARIABLE, PRIVATE, Places
from p2psync.errors import UserError

WATCHDOG_S: Final = 60
SYSTEM_UNITS: Final = Path("/etc/systemd/system")
COMMAND_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True)
class Service:
    """One unit: its name, where its file goes, its text and whose systemd it belongs to."""

    name: str
    file: Path
    text: str
    user: pwd.struct_passwd
    of_system: bool

    @property
    def systemctl(self) -> list[str]:
        """The start of every command about it."""
        return ["systemctl"] if self.of_system else ["systemctl", "--user"]


def user_service(places: Places, environ: Mapping[str, str]) -> Service:
    """Return the unit for this user's own systemd."""
    user = _account(os.geteuid())
    config = environ.get("XDG_CONFIG_HOME") or f"{user.pw_dir}/.config"
    name = _unit_name(places, "p2psync")
    return Service(
        name=name,
        file=Path(config) / "systemd" / "user" / name,
        text=_unit(places, _hardening(), "default.target"),
        user=user,
        of_system=False,
    )


def system_service(places: Places, user: pwd.struct_passwd, roots: Iterable[bytes]) -> Service:
    """Return the unit for the system's systemd, running as `user`.

    It can write below the user's home directory, the agent's home and the folders' roots.
    """
    writable = dict.fromkeys([user.pw_dir, str(places.home), *map(os.fsdecode, roots)])
    name = _unit_name(places, f"p2psync-{user.pw_name}")
    return Service(
        name=name,
        file=SYSTEM_UNITS / name,
        text=_unit(
            places,
            [
                f"User={user.pw_name}",
                "ProtectSystem=strict",
                *(f"ReadWritePaths={_quoted('-' + path)}" for path in writable),
                *_hardening(),
            ],
            "multi-user.target",
        ),
        user=user,
        of_system=True,
    )


def user_named(name: str) -> pwd.struct_passwd:
    """Return the account; UserError if there is none."""
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise UserError(f"There is no user {name!r} on this machine.") from error


def check_reachable(user: pwd.struct_passwd) -> None:
    """Make sure the user can run this program at all.

    Raises:
        UserError: it lies where only another user can read.
    """
    if user.pw_uid == 0:
        return
    python = Path(spawn.command()[0])
    for file in (python, python.resolve(), Path(spawn.__file__).resolve()):
        for parent in file.parents:
            found = parent.stat()
            if not found.st_mode & 0o001 and found.st_uid != user.pw_uid:
                raise UserError(
                    f"{user.pw_name} cannot run {file}: {parent} is closed to others. "
                    f"Install p2psync where {user.pw_name} can use it."
                )


def install(service: Service, places: Places) -> list[str]:
    """Write the unit, have it start now and at boot; return the commands left to type.

    An agent that runs for this home is ended first: the unit's takes its place.

    Raises:
        UserError: the unit's file cannot be written.
    """
    _make_home(service, places)
    try:
        service.file.parent.mkdir(parents=True, exist_ok=True)
        service.file.write_text(service.text)
        service.file.chmod(0o644)
    except OSError as error:
        raise UserError(f"{service.file} cannot be written ({error.strerror}).") from error
    ran = spawn.stop(places)
    steps = [
        [*service.systemctl, "daemon-reload"],
        [*service.systemctl, "enable", "--now", service.name],
    ]
    if not service.of_system:
        steps.insert(0, ["loginctl", "enable-linger", service.user.pw_name])
    left = _do(service, steps)
    if ran and left and service.user.pw_uid == os.geteuid():
        spawn.start(places)  # until the commands are typed
    return left


def uninstall(service: Service) -> list[str]:
    """End and remove the unit; return the commands left to type. Keys and folders stay.

    Raises:
        UserError: there is no such unit.
    """
    if not service.file.exists():
        raise UserError(f"There is no {service.file}: nothing to remove.")
    left = _do(service, [[*service.systemctl, "disable", "--now", service.name]])
    with contextlib.suppress(FileNotFoundError):
        service.file.unlink()
    return left + _do(service, [[*service.systemctl, "daemon-reload"]])


def state(service: Service) -> dict[str, str]:
    """Return whether the unit is installed, enabled, active and (user unit) lingering."""
    told = {
        "installed": "yes" if service.file.exists() else "no",
        "enabled": _said(service, [*service.systemctl, "is-enabled", service.name]),
        "active": _said(service, [*service.systemctl, "is-active", service.name]),
    }
    if not service.of_system:
        lingering = Path("/var/lib/systemd/linger", service.user.pw_name).exists()
        told["starts at boot"] = "yes" if lingering else "no"
    return told


def _unit_name(places: Places, name: str) -> str:
    """Return the unit's name; one for another home than the default says which."""
    if places.home.name == "p2psync":
        return f"{name}.service"
    return f"{name}-{re.sub(r'[^A-Za-z0-9]+', '-', places.home.name).strip('-')}.service"


def _unit(places: Places, service_lines: list[str], wanted_by: str) -> str:
    environment = spawn.module_path({}) | {HOME_VARIABLE: str(places.home)}
    lines = [
        "[Unit]",
        "Description=p2psync keeps folders equal",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in spawn.command())}",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in environment.items()),
        "Restart=on-failure",
        "RestartSec=10",
        f"WatchdogSec={WATCHDOG_S}",
        "TimeoutStopSec=10",
        *service_lines,
        "",
        "[Install]",
        f"WantedBy={wanted_by}",
        "",
    ]
    return "\n".join(lines)


def _hardening() -> list[str]:
    return ["NoNewPrivileges=yes"]


def _quoted(text: str) -> str:
    """Return one word of a unit file: `%` doubled, quoted if anything in it is special."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./-]+", text, re.ASCII):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _account(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError as error:
        raise UserError(f"The user {uid} has no account on this machine.") from error


def _make_home(service: Service, places: Places) -> None:
    """Make the agent's home for the user the unit runs as; a unit cannot make it itself."""
    if places.home.exists():
        return
    try:
        places.home.mkdir(mode=PRIVATE, parents=True)
        if os.geteuid() == 0:
            os.chown(places.home, service.user.pw_uid, service.user.pw_gid)
    except OSError as error:
        raise UserError(f"{places.home} cannot be made ({error.strerror}).") from error


def _do(service: Service, steps: list[list[str]]) -> list[str]:
    """Carry out the steps; return those that failed, as one would type them."""
    return [_typed(service, step) for step in steps if not _succeeds(service, step)]


def _succeeds(service: Service, step: list[str]) -> bool:
    if shutil.which(step[0]) is None:
        return False
    finished = _run(service, step)
    return finished is not None and finished.returncode == 0


def _said(service: Service, step: list[str]) -> str:
    finished = _run(service, step) if shutil.which(step[0]) else None
    said = finished.stdout.strip() if finished else ""
    return said or "unknown"


def _run(service: Service, step: list[str]) -> subprocess.CompletedProcess[str] | None:
    # a login over SSH or a cron job may lack the variable by which the user's systemd is found
    environment = dict(os.environ)
    environment.setdefault("XDG_RUNTIME_DIR", f"/run/user/{service.user.pw_uid}")
    try:
        return subprocess.run(  # noqa: S603 - systemd's own tools
            step,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _typed(service: Service, step: list[str]) -> str:
    """Return the command as a person types it, with what it needs to work over SSH."""
    text = shlex.join(step)
    if step[0] == "loginctl":
        return f"sudo {text}" if os.geteuid() else text
    if service.of_system:
        return text
    return f"XDG_RUNTIME_DIR=/run/user/{service.user.pw_uid} {text}"
