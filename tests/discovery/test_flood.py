"""What a hostile host announces costs a bounded amount of memory and hides nobody."""

from __future__ import annotations

import sys

import pytest

from tests.discovery.speaker import ROOT, TYPE, Speaker
from tests.support.netns import Lan
from tests.support.require import require

pytestmark = pytest.mark.slow

FLOOD = [sys.executable, "-m", "tests.discovery.flood"]
GROWTH_KIB = 48 * 1024


@pytest.mark.parametrize(
    ("service", "count", "text_bytes", "rate"),
    [
        (TYPE, 20_000, 0, 8_000),
        (TYPE, 4_000, 8_192, 2_000),
        ("_other._tcp", 4_000, 8_192, 2_000),
    ],
    ids=["names", "large", "strangers"],
)
def test_t02_a_flood_of_announcements_is_bounded(
    service: str, count: int, text_bytes: int, rate: int
) -> None:
    """Thousands of bogus announcements, small or as large as can be, leave the browsing
    process small and able to find a real newcomer at once."""
    require("netns", "multicast")
    with Lan("a", "b", "c") as lan:
        browsing, real = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
        browsing.browse()
        real.announce("before")
        browsing.hear("found", name="before")
        browsing.tell("tell")
        before_kib = browsing.hear("told")["rss_kib"]
        what = [service, str(count), str(text_bytes), str(rate)]
        lan.run("c", [*FLOOD, "announce", lan.address("c"), *what], cwd=ROOT)
        started = real.announce("after")
        assert browsing.hear("found", name="after")["at"] - started < 3.0
        browsing.tell("tell")
        assert browsing.hear("told")["rss_kib"] - before_kib < GROWTH_KIB


def test_t02_malformed_packets_are_ignored() -> None:
    """Pointer loops, wrong counts, overrun lengths and noise harm nothing."""
    require("netns", "multicast")
    with Lan("a", "b") as lan:
        browsing, real = Speaker(lan, "a").ready(), Speaker(lan, "b").ready()
        browsing.browse()
        lan.run("b", [*FLOOD, "malformed", lan.address("b")], cwd=ROOT)
        started = real.announce("real")
        assert browsing.hear("found", name="real")["at"] - started < 1.0
