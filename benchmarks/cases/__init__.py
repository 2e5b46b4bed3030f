"""Every case, in the order of the page. A new one: its module here, and a line in `CASES`."""

from __future__ import annotations

from typing import Final

from benchmarks.case import Case
from benchmarks.cases import (
    agent,
    datachannel,
    delta,
    economy,
    fanout,
    latency,
    links,
    renames,
    scaling,
    transfers,
)

CASES: Final[tuple[Case, ...]] = (
    *transfers.CASES,
    latency.CASE,
    fanout.CASE,
    delta.CASE,
    renames.CASE,
    *links.CASES,
    datachannel.CASE,
    economy.CASE,
    *agent.CASES,
    scaling.CASE,
)
