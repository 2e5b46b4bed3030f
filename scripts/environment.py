"""Runs p2psync from this checkout, in a private environment made on first use.

    environment.py ARGS…        what `scripts/p2psync ARGS…` does

An environment is named by the lock file and the Python it is for, so a changed lock gives a new
one beside the old, which a running agent may still need. It counts as complete only when its
last file, the stamp, is there: one that was cut off is made anew. Needs only the standard
library, no root and no compiler.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LOCK = CHECKOUT / "scripts" / "requirements.lock"
DEV_LOCK = CHECKOUT / "scripts" / "requirements-dev.lock"
STAMP = "complete"
KEPT = 2  # environments of one kind
CANNOT_START = 8


def main() -> None:
    """Make sure of the environment and become the program in it."""
    python = ensure("run", LOCK)
    environ = dict(os.environ, PYTHONPATH=str(CHECKOUT))
    argv = [str(python), "-P", "-m", "p2psync", *sys.argv[1:]]
    os.execve(python, argv, environ)  # noqa: S606 - our own program


def ensure(kind: str, lock: Path) -> Path:
    """Return the Python of the environment with what `lock` lists, made if need be."""
    real = os.path.realpath(sys.executable)  # the same inside somebody's activated environment
    identity = f"{sys.version} {real} {CHECKOUT}".encode() + lock.read_bytes()
    base = _base()
    place = base / f"{kind}-{hashlib.sha256(identity).hexdigest()[:12]}"
    python = place / "bin" / "python"
    if _complete(place):
        return python
    with _alone(base):
        if not _complete(place):
            try:
                _make(place, lock)
            except BaseException:  # half a one must not count among those that are kept
                shutil.rmtree(place, ignore_errors=True)
                raise
            _remove_old(base, kind, place)
    return python


def _base() -> Path:
    """Return where environments go: the checkout, or the user's cache if that is read-only."""
    inside = CHECKOUT / ".venv"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "p2psync"
    for base in (inside, cache):
        with contextlib.suppress(OSError):
            base.mkdir(parents=True, exist_ok=True)
            if os.access(base, os.W_OK | os.X_OK):
                return base
    sys.exit(f"p2psync: neither {inside} nor {cache} can be written; set XDG_CACHE_HOME.")


def _complete(place: Path) -> bool:
    return (place / STAMP).exists() and os.access(place / "bin" / "python", os.X_OK)


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Be the only one who makes environments here."""
    with (base / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting for another start to finish the private environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(place: Path, lock: Path) -> None:
    _say(f"first use: making a private environment in {place} (about a minute)")
    shutil.rmtree(place, ignore_errors=True)
    _run(
        [sys.executable, "-m", "venv", str(place)],
        "Python cannot make environments here. On Debian: apt-get install python3-venv",
    )
    _run(
        [
            *(str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"),
            *("--disable-pip-version-check", "--no-input", "--require-hashes"),
            *("--only-binary", ":all:", "--requirement", str(lock)),
        ],
        "The packages could not be installed. Is there a network? Then try again.",
    )
    (place / STAMP).touch()
    _say("the private environment is ready")


def _run(argv: list[str], advice: str) -> None:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write((done.stdout + done.stderr)[-4_000:])
        _say(advice)
        sys.exit(CANNOT_START)


def _remove_old(base: Path, kind: str, newest: Path) -> None:
    old = [place for place in base.glob(f"{kind}-*") if place != newest]
    old.sort(key=lambda place: place.stat().st_mtime, reverse=True)
    for place in old[KEPT - 1 :]:
        shutil.rmtree(place, ignore_errors=True)


def _say(text: str) -> None:
    print(f"p2psync: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
