"""The private environment of a checkout: made once, repaired, and renewed with the lock."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose lock lists nothing and whose program prints its arguments."""
    checkout = tmp_path / "a checkout"
    shutil.copytree(
        CHECKOUT / "scripts",
        checkout / "scripts",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (checkout / "scripts" / "requirements.lock").write_text("# nothing\n")
    (checkout / "p2psync").mkdir()
    (checkout / "p2psync" / "__main__.py").write_text(
        "import os, sys\nprint(sys.argv[1:], os.getcwd())\n"
    )
    return checkout


def run(script: Path, *args: str, cwd: Path | str = "/") -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [script, *args], env=environ, cwd=cwd, capture_output=True, text=True, check=False
    )


def test_it_is_made_once_from_anywhere_and_repaired(checkout: Path, tmp_path: Path) -> None:
    """Said on first use only; cut off or without its Python it is made anew."""
    script = tmp_path / "link"
    script.symlink_to(checkout / "scripts" / "p2psync")

    first = run(script, "a b", "--c", cwd=tmp_path)
    second = run(script)
    (stamp,) = checkout.glob(".venv/run-*/complete")
    stamp.unlink()
    (stamp.parent / "bin" / "python").unlink()
    third = run(script)

    assert first.stdout == f"['a b', '--c'] {tmp_path}\n", first.stderr
    assert "first use" in first.stderr
    assert (second.stdout, second.stderr) == ("[] /\n", "")
    assert "first use" in third.stderr
    assert third.stdout == second.stdout


def test_an_activated_environment_makes_no_other_one(checkout: Path, tmp_path: Path) -> None:
    """Else three projects of a user would push out the one that an agent runs in."""
    script = checkout / "scripts" / "p2psync"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", tmp_path / "other"], check=True
    )
    other = {"PATH": f"{tmp_path}/other/bin:{os.environ['PATH']}"}
    both = [
        subprocess.run([script], env=os.environ | extra, capture_output=True, text=True)
        for extra in ({}, other)
    ]
    assert ["first use" in done.stderr for done in both] == [True, False]


def test_two_first_uses_make_one_environment(checkout: Path) -> None:
    """The second waits for the first, saying so."""
    script = checkout / "scripts" / "p2psync"
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    both = [
        subprocess.Popen(
            [script],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [one.communicate() for one in both]

    assert [one.returncode for one in both] == [0, 0], said
    assert sum("first use" in err for _, err in said) == 1


def test_a_changed_lock_makes_a_new_one(checkout: Path) -> None:
    """The old one stays for an agent that still runs from it; older ones go."""
    for age, name in enumerate(("run-last", "run-older", "dev-other")):
        place = checkout / ".venv" / name
        place.mkdir(parents=True)
        os.utime(place, (1_000_000 - age, 1_000_000 - age))

    assert "first use" in run(checkout / "scripts" / "p2psync").stderr

    left = {place.name for place in checkout.glob(".venv/*-*")}
    assert {"run-last", "dev-other"} < left
    assert len(left) == 3


def test_what_cannot_be_installed_is_told_and_not_used(checkout: Path) -> None:
    """A package without a hash is refused; the next start tries again."""
    (checkout / "scripts" / "requirements.lock").write_text("click==8.2.0\n")

    first, second = (run(checkout / "scripts" / "p2psync") for _ in range(2))

    assert (first.returncode, first.stdout) == (8, "")
    assert "hash" in first.stderr.lower()
    assert "first use" in second.stderr
    assert not list(checkout.glob(".venv/run-*"))  # else one that is in use would make room


def test_the_locks_have_hashes_and_no_addresses() -> None:
    """They install only what was looked at, from wherever the user's pip gets it."""
    for name in ("requirements.lock", "requirements-dev.lock"):
        lines = (CHECKOUT / "scripts" / name).read_text().splitlines()
        pinned = [line for line in lines if not line.startswith("    --hash=sha256:")]
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned)
        assert not [line for line in lines if "://" in line]
