"""Where the agent keeps its things, and its few settings."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from p2psync.config import model, places
from p2psync.config.places import Places
from p2psync.errors import ExitCode, UserError
from tests.support.require import require


def test_the_home_asked_for_beats_the_environments() -> None:
    """--home, then P2PSYNC_HOME, then the platform's own place."""
    environ = {"P2PSYNC_HOME": "/srv/env"}

    assert places.find("/srv/asked", environ).home == Path("/srv/asked")
    assert places.find(None, environ).home == Path("/srv/env")


def test_a_relative_home_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent changes its directory, so nothing it keeps may depend on it."""
    monkeypatch.chdir(tmp_path)

    assert places.find("here", {}).socket == tmp_path / "here" / "run" / "control.sock"


def test_the_default_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word the platform's place for data is taken."""
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")

    assert places.find(None, {}).home == Path("/srv/data/p2psync")


def test_without_home_in_the_environment_the_accounts_own_is_taken() -> None:
    """A bare service environment is no obstacle."""
    program = "from p2psync.config import places; print(places.find(None, {}).home)"
    environ = {"PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )

    assert Path(done.stdout.strip()).is_absolute()
    assert done.stdout.strip().endswith("p2psync")


def test_an_account_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever put into a directory named ~."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: Path("~/.local/share"))

    with pytest.raises(UserError, match="--home DIR"):
        places.find(None, {})


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_i17_directories_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """Every directory of the home is 0700, and making them twice is harmless."""
    here = Places(tmp_path / "home")
    before = os.umask(umask)
    try:
        here.create()
        here.create()
    finally:
        os.umask(before)

    made = (here.home, here.runtime, here.replicas, here.keys, here.log.parent)
    assert {stat.S_IMODE(place.stat().st_mode) for place in made} == {0o700}


def test_a_home_that_cannot_be_made_is_told_with_what_to_do(tmp_path: Path) -> None:
    """The sentence names the place and the way out; exit code 8."""
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="Choose another place") as caught:
        Places(tmp_path / "file" / "home").create()
    assert caught.value.exit_code == ExitCode.NO_AGENT


def test_a_home_that_cannot_be_written_is_told_with_what_to_do(tmp_path: Path) -> None:
    """A read-only home is found out before anything half works."""
    require("root")
    home = tmp_path / "home"
    home.mkdir()
    tmp_path.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path\n"
        "from p2psync.config.places import Places\n"
        "from p2psync.errors import UserError\n"
        "os.setuid(65534)\n"
        "try: Places(Path(sys.argv[1])).create()\n"
        "except UserError as error: print(error.message)\n"
    )
    for parent in tmp_path.parents:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)],
        env={"PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "cannot be written" in done.stdout, done.stderr


def test_without_a_file_the_settings_are_the_defaults(tmp_path: Path) -> None:
    """The name is the host's."""
    config = model.load(tmp_path / "config.toml")

    assert config.log_level == "info"
    assert config.name == model.host_name()


def test_settings_are_read(tmp_path: Path) -> None:
    """What the file says is what the agent gets."""
    file = tmp_path / "config.toml"
    file.write_text('name = "Küche"\nlog_level = "debug"\n')

    assert model.load(file) == model.Config("Küche", "debug")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "cannot be read"),
        ("name = 3", "must be a text"),
        ('nme = "x"', "there is no setting 'nme'"),
        ('name = ""', "1 to 100"),
        ('name = "a\\u001bb"', "printable"),
        (f'name = "{"x" * 101}"', "1 to 100"),
        ('log_level = "loud"', "one of debug"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, said: str) -> None:
    """A typing error is never silently a default."""
    file = tmp_path / "config.toml"
    file.write_text(text)

    with pytest.raises(UserError, match=said):
        model.load(file)
