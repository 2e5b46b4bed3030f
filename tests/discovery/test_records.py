"""Which addresses of a record are worth dialling, and in what order."""

from __future__ import annotations

import pytest

from discovery.records import ADDRESSES, ordered


def scope_name(number: int) -> str:
    if number == 9:
        raise OSError("no such interface")
    return f"eth{number}"


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ([], ()),
        (["fe80::1%2", "fd00::1", "192.168.1.2"], ("192.168.1.2", "fd00::1", "fe80::1%eth2")),
        (["192.168.1.2", "192.168.1.2"], ("192.168.1.2",)),
        (["127.0.0.1"], ("127.0.0.1",)),
        (["127.0.0.1", "10.0.0.1", "::1"], ("10.0.0.1",)),
        (["fe80::1"], ()),  # on which interface?
        (["fe80::1%9"], ()),  # on one that is gone
        (["fe80::1%eth0"], ()),  # zeroconf gives numbers
        (["224.0.0.251", "0.0.0.0", "255.255.255.255", "ff02::fb", "::"], ()),
        (["::ffff:10.0.0.1"], ()),  # a disguise
        (["", "hello", "10.0.0.1.5", "10.0.0.256"], ()),
    ],
)
def test_addresses_worth_dialling(claimed: list[str], expected: tuple[str, ...]) -> None:
    """IPv4, then IPv6, then link-local with its interface; nonsense left out."""
    assert ordered(claimed, scope_name) == expected


def test_a_record_of_a_thousand_addresses_gives_sixteen() -> None:
    """However many addresses a record claims, few are taken."""
    claimed = [f"10.0.{n // 256}.{n % 256}" for n in range(1_000)]
    assert len(ordered(claimed, scope_name)) == ADDRESSES
