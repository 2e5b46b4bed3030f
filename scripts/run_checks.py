"""Checks what a person wants checked before a commit: format, lint, types, imports, fast tests.

    scripts/check            all of it
    scripts/check --fix      formats and repairs what can be repaired first

Run from anywhere; uses an environment of its own with the development lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from environment import CHECKOUT, DEV_LOCK, ensure

STATIC = [
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("types", ["mypy", "--no-error-summary"]),
    ("imports", ["lint-imports"]),
]
FIXES = [
    ("format", ["ruff", "format", "--quiet", "."]),
    ("lint", ["ruff", "check", "--quiet", "--fix", "."]),
]
FAST = ["pytest", "-q", "-m", "not slow", "--ignore", "tests/e2e", "-p", "no:cacheprovider"]


def main() -> int:
    """Run every check and return 1 if any failed."""
    python = ensure("dev", DEV_LOCK)
    steps = [*STATIC, ("fast tests", FAST)]
    if "--fix" in sys.argv[1:]:
        steps = FIXES + steps
    verdicts = [check(python, name, argv) for name, argv in steps]  # all, even after a failure
    return int(not all(verdicts))


def check(python: Path, name: str, argv: list[str]) -> bool:
    """Run one tool of the environment; its output is shown only if it fails."""
    began = time.monotonic()
    done = subprocess.run(
        [str(python.parent / argv[0]), *argv[1:]],
        cwd=CHECKOUT,
        env=tools(python),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    verdict = "failed" if done.returncode else "passed"
    if done.returncode:
        print(done.stdout, end="")
    print(f"{name:12} {verdict}  {time.monotonic() - began:6.1f} s", flush=True)
    return not done.returncode


def tools(python: Path) -> dict[str, str]:
    """Return the environment variables under which tools and tests run."""
    # an ordinary user's PATH often lacks the places where nft and the like are
    path = f"{python.parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return dict(os.environ, PATH=path, PYTHONPATH=str(CHECKOUT))


if __name__ == "__main__":
    sys.exit(main())
