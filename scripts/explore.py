"""Runs random schedules against the data model.

    python scripts/explore.py 20000 --seed 1 --features trees

Prints how many ran, and the shortest script that breaks a promise if one does. The tests run a
few hundred of the same; run tens of thousands after touching a rule.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

# What is explored lives with the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.core.replica import Rules
from tests.core.world import ALWAYS, FEATURES, WEIGHTS, search


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description="Run random schedules against the data model.")
    parser.add_argument("schedules", type=int)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument(
        "--features",
        default="trees",
        help=f"one of {', '.join(FEATURES)}, or a comma list of {', '.join(sorted(WEIGHTS))}",
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of tests.core.replica",
    )
    options = parser.parse_args()
    features = FEATURES.get(options.features)
    if features is None:
        features = ALWAYS | frozenset(options.features.split(","))
    rules = Rules()._replace(**dict(_rule(text) for text in options.rule))
    began, done = time.monotonic(), 0
    while done < options.schedules:
        count = min(1_000, options.schedules - done)
        first = options.seed + done
        found = search(range(first, first + count), features, rules)
        if found is not None:
            print(found)
            return 1
        done += count
        print(f"{done} schedules, {time.monotonic() - began:.0f} s", flush=True)
    return 0


def _rule(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, {"True": True, "False": False}.get(value, value)


if __name__ == "__main__":
    sys.exit(main())
