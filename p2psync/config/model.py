"""The few settings of the agent, read from an optional `config.toml` in its home."""

from __future__ import annotations

import socket
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from p2psync.errors import UserError
from p2psync.protocol.limits import NAME_TEXT

LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Config:
    """What the user may settle; every field has a default that is right for nearly all."""

    name: str
    """How other devices see this one: up to 100 bytes, printable. Default: the host's name."""

    log_level: str = "info"
    """How much the log says: debug, info, warning or error."""


def load(file: Path) -> Config:
    """Read the settings; a missing file means all defaults.

    Raises:
        UserError: the file cannot be read or says something we do not know; names the place.
    """
    try:
        with file.open("rb") as opened:
            said = tomllib.load(opened)
    except FileNotFoundError:
        said = {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}. Correct or remove it.") from error
    return _checked(file, {"name": host_name(), **said})


def host_name() -> str:
    """Return the host's name as a device name: never empty, printable, short enough."""
    name = "".join(c for c in socket.gethostname() if c.isprintable())
    return name.encode()[:NAME_TEXT].decode(errors="ignore") or "device"


def _checked(file: Path, said: dict[str, object]) -> Config:
    known = [field.name for field in fields(Config)]
    for key, value in said.items():
        if key not in known:
            raise UserError(f"{file}: there is no setting {key!r}; known: {', '.join(known)}.")
        if not isinstance(value, str):
            raise UserError(f"{file}: {key} must be a text in quotes.")
    config = Config(**{key: str(value) for key, value in said.items()})
    if (
        not config.name
        or not config.name.isprintable()
        or len(config.name.encode()) > NAME_TEXT
    ):
        raise UserError(f"{file}: name must be 1 to {NAME_TEXT} printable bytes.")
    if config.log_level not in LOG_LEVELS:
        raise UserError(f"{file}: log_level must be one of {', '.join(LOG_LEVELS)}.")
    return config
