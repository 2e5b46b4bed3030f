"""Measures what old age costs: ten years of daily restarts of five devices.

    scripts/with-python scripts/measure_age.py      (in the development environment)

Every start that changes something adds one component to the knowledge of all replicas; ten
years of five devices are about 18,000. Prints what a connect, a small change and an index of
that age cost, in bytes on the wire, milliseconds and megabytes.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from p2psync.core.draft import Draft
from p2psync.core.entry import Kind
from p2psync.core.observed import Observed
from p2psync.engine.exchange import Exchange
from p2psync.protocol import codec
from p2psync.protocol.messages import Attach, Knowledge, Mark, Message, Recognised
from p2psync.store.index import Index

COMPONENTS = 18_000
FOLDER = b"f" * 16
KEYS = (b"a" * 32, b"b" * 32)


class Side:
    """One replica's index and its exchange with the other."""

    def __init__(self, path: Path, number: int, known: dict[int, int]) -> None:
        self.index = Index.open(path / f"{number}.db", start=number + 1)
        draft = self.draft()
        draft.finish_mark(known, {})
        self.index.write(draft.finish())
        self.number = number
        self.meet()

    def draft(self) -> Draft:
        """Return a draft over the index."""
        return Draft(self.index, spare_author=secrets.randbits(63) | 1)

    def meet(self) -> None:
        """Begin a new session with the other side."""
        peer = KEYS[1 - self.number % 2]
        self.exchange = Exchange(
            self.index,
            FOLDER,
            peer,
            self.draft,
            self.index.needed_totals,
            lambda: False,
            lambda: True,
        )

    def change(self, number: int) -> None:
        """Find one changed file."""
        content = number.to_bytes(32, "big")
        draft = self.draft()
        draft.scan({b"note": Observed(Kind.FILE, content, 5, b"", False, number, None)})
        self.index.write(draft.finish())


def take(side: Side, message: Message) -> list[Message]:
    """Give one side a message; return its answers."""
    exchange = side.exchange
    match message:
        case Attach():
            return [exchange.take_attach(message)]
        case Recognised():
            return exchange.take_recognised(message)
        case Knowledge():
            exchange.take_knowledge(message)
        case Mark():
            exchange.take_mark(message, KEYS)
        case _:
            exchange.take_entries(message)  # type: ignore[arg-type]  # the only one left
    return []


def settle(sides: tuple[Side, Side], waiting: list[tuple[Side, Message]]) -> int:
    """Deliver until nobody has anything to say; return the bytes that travelled."""
    total = 0
    while True:
        if not waiting:
            for sender, receiver in (sides, sides[::-1]):
                waiting += [(receiver, m) for m in sender.exchange.next_messages()]
            if not waiting:
                return total
        receiver, message = waiting.pop(0)
        total += len(codec.encode(message))
        answers = take(receiver, message)
        sender = sides[0] if receiver is sides[1] else sides[1]
        waiting += [(sender, answer) for answer in answers]


def connect(sides: tuple[Side, Side]) -> tuple[int, float]:
    """Connect and settle; return bytes and milliseconds."""
    for side in sides:
        side.meet()
    began = time.perf_counter()
    hellos = [(sides[1 - i], sides[i].exchange.attach()) for i in (0, 1)]
    size = settle(sides, list(hellos))
    return size, (time.perf_counter() - began) * 1000


def change(sides: tuple[Side, Side], number: int) -> tuple[int, float]:
    """Change one file and settle; return bytes and milliseconds."""
    began = time.perf_counter()
    sides[0].change(number)
    return settle(sides, []), (time.perf_counter() - began) * 1000


def main() -> None:
    """Print the table."""
    for components in (1, COMPONENTS):
        known = {secrets.randbits(63) | 1: 365 for _ in range(components)}
        with tempfile.TemporaryDirectory() as directory:
            tracemalloc.start()
            Side(Path(directory), 2, known).index.close()
            memory = tracemalloc.get_traced_memory()[1] / 1e6
            tracemalloc.stop()
            sides = (Side(Path(directory), 0, known), Side(Path(directory), 1, {}))
            first = connect(sides)
            again = connect(sides)
            change(sides, 1)
            one = sorted(change(sides, number) for number in range(2, 12))[5]
            disk = sum(f.stat().st_size for f in Path(directory).glob("0.db*")) / 1e6
        print(f"{components} components of knowledge")
        for name, (size, took) in (
            ("first connect, nothing known", first),
            ("connect again", again),
            ("one small change", one),
        ):
            print(f"  {name:30} {size:9,} bytes {took:8.1f} ms, both sides together")
        print(f"  opening it takes {memory:.1f} MB of memory at most, {disk:.1f} MB on disk")


if __name__ == "__main__":
    main()
