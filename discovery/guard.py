"""Bounds what strangers' records cost, and sees newcomers.

zeroconf keeps 10,000 records, each up to 9 KB: 90 MB that anybody on the network could make it
hold. And when they are full it drops what runs out first: of a flood of long-lived records and
a newcomer's address for two minutes, the address. So it never gets so far here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zeroconf import RecordUpdate, RecordUpdateListener, Zeroconf
from zeroconf._cache import DNSCache
from zeroconf._dns import DNSPointer, DNSRecord, DNSService, DNSText

RECORDS: Final = 4_000  # new ones between two sweeps
TEXT_BYTES: Final = 4 * 2**20  # in them


class Guard(RecordUpdateListener):
    """Sees every record zeroconf takes in."""

    def __init__(
        self, wants: Callable[[DNSRecord], bool], newcomer: Callable[[DNSPointer], None]
    ) -> None:
        """Watch.

        Args:
            wants: whether a record belongs to a name that is tracked.
            newcomer: called for each instance not heard of before, of whatever type.
        """
        super().__init__()
        self._wants = wants
        self._newcomer = newcomer
        self._records = 0
        self._text_bytes = 0
        self._newcomers: list[DNSPointer] = []

    def async_update_records(
        self, zc: Zeroconf, now: float, records: list[RecordUpdate]
    ) -> None:
        """Count what goes into the cache, and note who is new."""
        for update in records:
            record = update.new
            if update.old is not None or record.is_expired(now):
                continue
            self._records += 1
            if isinstance(record, DNSText):
                self._text_bytes += len(record.text)
            elif isinstance(record, DNSPointer):
                self._newcomers.append(record)
        if self._records > RECORDS or self._text_bytes > TEXT_BYTES:
            self._records = self._text_bytes = 0
            sweep(zc.cache, self._wants)

    def async_update_records_complete(self) -> None:
        """Tell of newcomers, now that the cache has the whole packet."""
        newcomers, self._newcomers = self._newcomers, []
        for pointer in newcomers:
            self._newcomer(pointer)


def sweep(cache: DNSCache, wants: Callable[[DNSRecord], bool]) -> None:
    """Drop all but the wanted records and their hosts' addresses; all, if they are too many."""
    every = [record for records in cache.cache.values() for record in records]
    wanted = {record for record in every if wants(record)}
    hosts = {record.server_key for record in wanted if isinstance(record, DNSService)}
    wanted.update(record for record in every if record.key in hosts)
    kept = wanted if len(wanted) < RECORDS else set()
    cache.async_remove_records([record for record in every if record not in kept])
