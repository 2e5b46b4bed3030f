"""Where the agent of one home keeps its things: everything below one private directory.

The control socket too lies there and not in `XDG_RUNTIME_DIR`, which a boot, a login over SSH
and `sudo` each set differently: whoever has the same home finds the same agent. It also leaves
nothing in a place where another user could have put a link first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2psync.errors import ExitCode, UserError

HOME_VARIABLE: Final = "P2PSYNC_HOME"
PRIVATE: Final = 0o700


@dataclass(frozen=True)
class Places:
    """The places below a home; none of them need exist before `create`."""

    home: Path
    """The agent's home itself; absolute."""

    @property
    def keys(self) -> Path:
        """The directory of the device's key file."""
        return self.home / "keys"

    @property
    def database(self) -> Path:
        """The agent's own database: peers, members, replicas."""
        return self.home / "agent.db"

    @property
    def replicas(self) -> Path:
        """The directory with one index per replica."""
        return self.home / "replicas"

    @property
    def runtime(self) -> Path:
        """The directory of the control socket."""
        return self.home / "run"

    @property
    def socket(self) -> Path:
        """The control socket; may be longer than a Unix socket's path can be."""
        return self.runtime / "control.sock"

    @property
    def log(self) -> Path:
        """The log of the agent in the background."""
        return self.home / "log" / "agent.log"

    @property
    def last_words(self) -> Path:
        """What the agent in the background wrote to stderr since its last start."""
        return self.home / "log" / "agent.err"

    @property
    def lock(self) -> Path:
        """The file whose flock says that an agent runs; its text is that agent's pid."""
        return self.home / "agent.lock"

    @property
    def config(self) -> Path:
        """The optional settings, written by the user."""
        return self.home / "config.toml"

    def create(self) -> None:
        """Make the directories, for the owner only whatever the umask; existing ones stay.

        Raises:
            UserError: the home cannot be made or written, with what to do.
        """
        try:
            for directory in (
                self.home,
                self.runtime,
                self.replicas,
                self.log.parent,
                self.keys,
            ):
                if not directory.is_dir():
                    directory.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
                    directory.chmod(PRIVATE)
            self.runtime.chmod(PRIVATE)
            if not os.access(self.home, os.W_OK | os.X_OK):
                raise PermissionError(0, "not writable")
        except OSError as error:
            raise UserError(
                f"The agent's home {self.home} cannot be written ({error.strerror}). Choose "
                f"another place: p2psync --home DIR …, or set {HOME_VARIABLE}.",
                ExitCode.NO_AGENT,
            ) from error


def find(home: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Places:
    """Return the places of the home asked for, else `$P2PSYNC_HOME`'s, else the platform's.

    Nothing is created. Works without `HOME` in the environment (the account's own is used).

    Raises:
        UserError: this account has no home directory and nobody said where.
    """
    chosen = os.fspath(home) if home is not None else environ.get(HOME_VARIABLE, "")
    if chosen:
        return Places(Path(os.path.abspath(Path(chosen).expanduser())))
    # an agent in the background is told its home, and does without this
    import platformdirs

    default = platformdirs.user_data_path("p2psync", appauthor=False)
    if not default.is_absolute():
        raise UserError(
            "This account has no home directory. Say where p2psync may keep its keys and "
            f"indexes: p2psync --home DIR …, or set {HOME_VARIABLE}.",
            ExitCode.NO_AGENT,
        )
    return Places(default)


def of_user(directory: str) -> Places:
    """Return the default places of the user whose home directory is given: for root's use."""
    return Places(Path(directory) / ".local" / "share" / "p2psync")
