"""Runs the benchmarks on this machine, installing what they need where that is allowed.

    scripts/bench            every case; writes docs/performance.json, .md and the pictures
    scripts/bench --help     the rest, told by `benchmarks/__main__.py`

Needs root, for network namespaces, packet filters and an ssh server of its own.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from environment import DEV_LOCK, ensure
from run_checks import tools
from run_tests import install_packages

PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "nft": "nftables",
    "rsync": "rsync",
    "unison": "unison",
    "syncthing": "syncthing",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "cc": "gcc",
    "strace": "strace",
    "diff": "diffutils",
}
"""Debian's packages for the programs that are measured and that measure."""

LIBC = Path("/usr/include/stdio.h")


def main() -> None:
    """Install, then become the benchmarks."""
    asks = {"--list", "--help", "-h", "--draw"} & set(sys.argv[1:])
    if not asks:
        if os.geteuid():
            sys.exit("The benchmarks need root: they build networks of their own.")
        headers = () if LIBC.exists() else ("libc6-dev", "linux-libc-dev")
        if missing := install_packages(PACKAGES, headers):
            print(f"not installed, what needs them will fail: {', '.join(sorted(missing))}")
    python = ensure("dev", DEV_LOCK)
    argv = [str(python), "-P", "-m", "benchmarks", *sys.argv[1:]]
    os.execve(python, argv, tools(python))  # noqa: S606 - our own program


if __name__ == "__main__":
    main()
