"""Names of conflict copies are found from both sides."""

from __future__ import annotations

from p2psync.core.index import Changes, Claim
from p2psync.store.index import Index
from tests.support.build import AUTHOR


def test_claims_are_replaced_home_by_home(index: Index) -> None:
    """Writing a home's claims replaces all it had; another home's stay."""
    first = Claim(b"a", (AUTHOR, 1), 0, False)
    second = Claim(b"a", (AUTHOR, 1), 1, True)
    other = Claim(b"b", (7, 2), 0, True)
    index.write(
        Changes(
            index.facts(),
            claims={b"a": {b"name": [first], b"name 1": [second]}, b"b": {b"name": [other]}},
        )
    )
    assert index.names_of([b"a", b"b", b"c"]) == {
        b"a": {b"name": [first], b"name 1": [second]},
        b"b": {b"name": [other]},
    }
    assert sorted(index.claims([b"name"])[b"name"]) == [first, other]
    assert index.conflicts() == [b"name", b"name 1"]

    index.write(Changes(index.facts(), claims={b"a": {}}))

    assert index.claims([b"name", b"name 1"]) == {b"name": [other]}
    assert index.conflicts() == [b"name"]


def test_conflicts_are_bounded(index: Index) -> None:
    """Status shows a number of conflict copies that somebody can read."""
    claims = {
        b"copy-%04d" % number: [Claim(b"a", (1, number), 0, True)] for number in range(50)
    }
    index.write(Changes(index.facts(), claims={b"a": claims}))

    assert index.conflicts(limit=3) == [b"copy-0000", b"copy-0001", b"copy-0002"]
