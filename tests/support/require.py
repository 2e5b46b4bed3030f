"""Says what a test needs of the machine: skips with a committed reason, or fails on demand.

    require("netns", "multicast")

Each need is tried for real, once per process. A need that is missing skips the test with
"needs netns: …", unless the environment's `P2PSYNC_REQUIRE` (a comma list) names it: then the
test fails, so that a machine that should have it cannot hide it.
"""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

TRY_TIMEOUT_S: Final = 20.0


class Need(NamedTuple):
    """One thing a test may need of the machine."""

    reason: str
    """What is missing when it is missing, and what would bring it (a package's name)."""
    present: Callable[[], bool]
    """Tries it for real."""


def succeeds(*argv: str, stdin: str = "", output: str = "") -> bool:
    """Return whether the command runs, ends with 0 and prints `output` somewhere."""
    if shutil.which(argv[0]) is None:
        return False
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TRY_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and output in done.stdout


@functools.cache
def unshare() -> tuple[str, ...] | None:
    """Return the way to a new network namespace, as root or rootless; None: neither works."""
    for argv in (("unshare", "-n"), ("unshare", "-U", "-r", "-n")):
        if succeeds(*argv, "ip", "link", "set", "lo", "up"):
            return argv
    return None


def _can_mount() -> bool:
    way = ("unshare", "-m") if os.geteuid() == 0 else ("unshare", "-U", "-r", "-m")
    return succeeds(*way, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt")


def _can_loop() -> bool:
    script = (
        "set -e; cd $(mktemp -d); truncate -s 8M image; mkfs.ext4 -q image; mkdir disk;"
        " mount -o loop image disk; umount disk; rm -r $PWD"
    )
    return os.geteuid() == 0 and succeeds("unshare", "-m", "sh", "-c", script)


def _can_filter() -> bool:
    rules = "table inet t {\n chain c {\n type filter hook input priority 0\n }\n}\n"
    return unshare() is not None and succeeds(*unshare() or (), "nft", "-f", "-", stdin=rules)


def _can_tap() -> bool:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError:
        return False
    program = "#include <linux/if_tun.h>\nint main(void) { return 0; }\n"
    return succeeds("cc", "-x", "c", "-o", "/dev/null", "-", stdin=program)


def _can_multicast() -> bool:
    # one process asks the other through a namespace's loopback, as the tests do
    program = (
        "import socket as s\n"
        "r = s.socket(s.AF_INET, s.SOCK_DGRAM); r.settimeout(5); r.bind(('', 5999))\n"
        "one = s.inet_aton('127.0.0.1'); group = s.inet_aton('224.0.0.251') + one\n"
        "r.setsockopt(s.IPPROTO_IP, s.IP_ADD_MEMBERSHIP, group)\n"
        "w = s.socket(s.AF_INET, s.SOCK_DGRAM)\n"
        "w.setsockopt(s.IPPROTO_IP, s.IP_MULTICAST_IF, one)\n"
        "w.sendto(b'x', ('224.0.0.251', 5999)); r.recv(1)\n"
    )
    inside = ("sh", "-c", 'ip link set lo up && exec python3 -c "$0"', program)
    return succeeds(*unshare() or ("env",), *inside)


def _can_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _can_avahi() -> bool:
    tools = ("avahi-daemon", "avahi-browse", "avahi-publish", "dbus-daemon")
    return os.geteuid() == 0 and _can_mount() and all(shutil.which(tool) for tool in tools)


NEEDS: Final[dict[str, Need]] = {
    "root": Need("the tests do not run as root", lambda: os.geteuid() == 0),
    "netns": Need(
        "no network namespaces here (iproute2, util-linux; root or user namespaces)",
        lambda: shutil.which("nsenter") is not None and unshare() is not None,
    ),
    "tap": Need(
        "no TAP devices or no C compiler here (/dev/net/tun; gcc, libc6-dev)", _can_tap
    ),
    "multicast": Need("no multicast on a loopback interface here", _can_multicast),
    "mountns": Need("no mount namespaces here (util-linux; root)", _can_mount),
    "userns": Need(
        "no user namespaces here (util-linux, and a kernel that allows them)",
        lambda: succeeds("unshare", "-U", "-r", "true"),
    ),
    "loop": Need("no disk images here (e2fsprogs, loop devices; root)", _can_loop),
    "nft": Need("no packet filter here (nftables)", _can_filter),
    "ipv6": Need("the kernel has no IPv6", _can_ipv6),
    "avahi": Need("no avahi here (avahi-daemon, avahi-utils, dbus; root)", _can_avahi),
    "strace": Need(
        "no system call tracing here (strace)", lambda: succeeds("strace", "-qq", "true")
    ),
    "faketime": Need(
        "no fake clock here (faketime)",
        lambda: succeeds("faketime", "1970-01-02 12:00:00", "date", "+%Y", output="1970"),
    ),
    "systemd": Need(
        "no unit checker here (systemd)",
        lambda: succeeds("systemd-analyze", "--version", output="systemd"),
    ),
    "git": Need("no git here (git)", lambda: succeeds("git", "--version")),
    "usr-include": Need(
        "no /usr/include with a thousand files (libc6-dev, linux-libc-dev)",
        lambda: sum(len(files) for _, _, files in os.walk("/usr/include")) > 1_000,
    ),
    "gigabytes": Need(
        "less than 4 GiB free for temporary files",
        lambda: shutil.disk_usage(os.environ.get("TMPDIR", "/tmp")).free > 4 * 2**30,
    ),
}
"""Everything a test may need, with the reason printed when it is skipped."""


@functools.cache
def present(need: str) -> bool:
    """Return whether the machine has it, trying only once; KeyError for an unknown need."""
    return NEEDS[need].present()


def require(*needs: str) -> None:
    """Skip the calling test where the machine lacks a need, or fail where it is demanded.

    Raises:
        KeyError: a need that is not in `NEEDS`.
    """
    demanded = {name.strip() for name in os.environ.get("P2PSYNC_REQUIRE", "").split(",")}
    for need in needs:
        if present(need):
            continue
        message = f"needs {need}: {NEEDS[need].reason}"
        if need in demanded:
            pytest.fail(f"{message} (P2PSYNC_REQUIRE demands it)", pytrace=False)
        pytest.skip(message)
