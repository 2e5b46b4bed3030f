"""Writes the lock files anew: exact versions, hashes for every platform, no addresses.

    make_lock.py            the newest versions pyproject.toml allows
    make_lock.py --check    only proves that the locks install where they must

The lock is made on one Python and must hold on all we support: it is proved by resolving it,
with binary wheels only, for each `TARGETS`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from environment import CHECKOUT, DEV_LOCK, LOCK

PIP_TOOLS = "pip-tools>=7.5"
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")
TARGETS = [
    (lock, machine, python)
    for machine in ("aarch64", "x86_64")
    for python in ("3.11", "3.12", "3.13")
    for lock in (LOCK, DEV_LOCK)
]


def main() -> None:
    """Write both locks, then prove them."""
    if "--check" not in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as directory:
            subprocess.run([sys.executable, "-m", "venv", directory], check=True)
            python = Path(directory, "bin", "python")
            _pip(python, "install", "--quiet", PIP_TOOLS)
            _compile(python, LOCK)
            _compile(python, DEV_LOCK, "--extra", "dev", "--constraint", str(LOCK))
    for lock, machine, version in TARGETS:
        _prove(lock, machine, version)
        print(f"{lock.name}: installs on {machine} with Python {version}", flush=True)


def _compile(python: Path, lock: Path, *options: str) -> None:
    lock.unlink(missing_ok=True)
    subprocess.run(
        [
            *(str(python), "-m", "piptools", "compile", "--quiet", "--generate-hashes"),
            *("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host"),
            *("--no-emit-options", "--no-header", "--no-annotate"),
            *("--strip-extras", "--allow-unsafe", *options),
            *("--output-file", str(lock), "pyproject.toml"),
        ],
        cwd=CHECKOUT,
        check=True,
    )


def _prove(lock: Path, machine: str, version: str) -> None:
    """Resolve the lock as a machine of that kind would, without installing anything."""
    platforms = [part for one in PLATFORMS for part in ("--platform", f"{one}_{machine}")]
    with tempfile.TemporaryDirectory() as directory:
        _pip(
            Path(sys.executable),
            *("install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"),
            *("--target", directory, "--python-version", version, *platforms),
            *("--only-binary", ":all:", "--require-hashes", "--requirement", str(lock)),
        )


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments], check=True
    )


if __name__ == "__main__":
    main()
