"""Runs every test on this machine, installing what they need where that is allowed.

    scripts/test             the static checks, then all tests
    scripts/test ARGS…       only pytest, with these arguments

As root on Debian missing packages are installed; elsewhere they are named. A test that needs
more than the machine has is skipped with a reason from `tests/support/require.py`; any other
reason is a failure, and so is a skip for what the environment's P2PSYNC_REQUIRE names. The last
lines count what passed and what was skipped.
"""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path

from environment import CHECKOUT, DEV_LOCK, ensure
from run_checks import STATIC, check, tools

PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "nft": "nftables",
    "avahi-daemon": "avahi-daemon",
    "avahi-browse": "avahi-utils",
    "dbus-daemon": "dbus",
    "strace": "strace",
    "faketime": "faketime",
    "systemd-analyze": "systemd",
    "git": "git",
}
"""Debian's packages for the programs that tests use."""

HEADERS = Path("/usr/include/linux")  # a real tree of files to sync
PHASES = [
    ("pure parts", ["tests/core", "tests/protocol"]),
    (
        "rooms",
        [
            *("tests/identity", "tests/store", "tests/fs", "tests/discovery", "tests/net"),
            *("tests/engine", "tests/config", "tests/control", "tests/agent", "tests/cli"),
            *("tests/support", "tests/scripts", "tests/benchmarks"),
        ],
    ),
    ("end to end", ["tests/e2e"]),
]


def main() -> int:
    """Run everything and return 1 if anything failed."""
    headers = () if HEADERS.is_dir() else ("libc6-dev", "linux-libc-dev")
    if missing := install_packages(PACKAGES, headers):
        print(f"not installed, tests that need them are skipped: {', '.join(sorted(missing))}")
    python = ensure("dev", DEV_LOCK)
    if sys.argv[1:]:
        argv = [str(python), "-m", "pytest", *sys.argv[1:]]
        return subprocess.run(argv, cwd=CHECKOUT, env=tools(python), check=False).returncode
    verdicts = [check(python, name, argv) for name, argv in STATIC]
    good = all(verdicts)
    counts: collections.Counter[str] = collections.Counter()
    for name, places in PHASES:
        good &= run_phase(python, name, places, counts)
    for outcome in sorted(counts, key=lambda outcome: (outcome != "passed", outcome)):
        print(f"{counts[outcome]:6} {outcome}")
    print("everything passed" if good else "something failed")
    return int(not good)


def install_packages(packages: dict[str, str], libraries: Iterable[str] = ()) -> set[str]:
    """Install what is missing, as root on Debian; return what is missing still.

    Args:
        packages: of which package a program on PATH is.
        libraries: packages that are missing and have no program.
    """
    missing = {package for program, package in packages.items() if not _found(program)}
    missing |= set(libraries)
    if subprocess.run([sys.executable, "-c", "import ensurepip, venv"], check=False).returncode:
        missing.add("python3-venv")
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {', '.join(sorted(missing))}", flush=True)
        apt("update")
        for package in sorted(missing):  # one by one: a missing one takes none with it
            if apt("install", "-y", "--no-install-recommends", package):
                missing.discard(package)
    return missing


def apt(*arguments: str) -> bool:
    """Run apt-get; return whether it succeeded, having shown why if it did not."""
    environ = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    program = shutil.which("apt-get") or "apt-get"
    done = subprocess.run(
        [program, "-qq", *arguments], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print((done.stdout + done.stderr)[-2_000:], flush=True)
    return not done.returncode


def run_phase(
    python: Path, name: str, places: list[str], counts: collections.Counter[str]
) -> bool:
    """Run the tests in these places; add up their outcomes; return whether all is well."""
    began = time.monotonic()
    present = [place for place in places if any((CHECKOUT / place).glob("**/test_*.py"))]
    if not present:
        print(f"{name}: no tests", flush=True)
        return False
    print(f"== {name}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        argv = [str(python), "-m", "pytest", "-q", "--durations=5", f"--junitxml={report}"]
        done = subprocess.run(
            [*argv, "-p", "no:cacheprovider", *present],
            cwd=CHECKOUT,
            env=tools(python),
            check=False,
        )
        known = add_up(python, report, counts)
    print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    return not done.returncode and known


def add_up(python: Path, report: Path, counts: collections.Counter[str]) -> bool:
    """Count outcomes; return whether every skip has a reason from the committed list."""
    if not report.exists():
        return False
    reasons = _reasons(python)
    unknown = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own
        skipped = case.find("skipped")
        if skipped is not None:
            reason = skipped.get("message", "")
            counts[f"skipped: {reason}"] += 1
            if reason not in reasons:
                unknown.append(reason)
        elif case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        else:
            counts["passed"] += 1
    for reason in unknown:
        print(f"skipped for a reason that is not in tests/support/require.py: {reason}")
    return not unknown


def _reasons(python: Path) -> set[str]:
    program = (
        "from tests.support.require import NEEDS\n"
        "for name, need in NEEDS.items(): print(f'needs {name}: {need.reason}')"
    )
    done = subprocess.run(
        [str(python), "-c", program],
        cwd=CHECKOUT,
        env=tools(python),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines())


def _found(program: str) -> bool:
    # an ordinary user's PATH often lacks the places of root's programs
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return shutil.which(program, path=path) is not None


if __name__ == "__main__":
    sys.exit(main())
