"""What a paired peer can do with entries: nothing beyond the files of the folder.

One replica and an honest peer of it live through the whole module: whatever a villain told
before must not matter to what comes after.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from p2psync.core.entry import Entry, Kind, Value
from p2psync.core.ids import Dot
from p2psync.protocol import limits
from p2psync.protocol.messages import Entries, Item
from tests.support.hostile import (
    AUTHOR,
    Lab,
    entry_of,
    file_value,
    lab,
    link_value,
    mark_of,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A victim and an honest peer."""
    async with lab(tmp_path_factory.mktemp("hostile")) as made:
        yield made


T16 = {
    "up": b"../x",
    "up in the middle": b"a/../../x",
    "up at the end": b"a/..",
    "absolute": b"/etc/x",
    "two slashes": b"//x",
    "dot": b".",
    "nothing": b"",
    "empty component": b"a//b",
    "dot component": b"a/./b",
    "slash at the end": b"a/",
    "nul": b"a\0b",
    "component too long": b"n" * 256,
    "too deep": b"/".join([b"d"] * 1_001),
}
T17 = {
    "reserved": b".p2psync",
    "below reserved": b".p2psync/marker",
    "staging": b".p2psync/staging/x",
    "case": b".P2PSYNC/x",
    "zero width": ".p2psync\u200c/x".encode(),
    "full width": "\uff0ep2psync/x".encode(),
}


@pytest.mark.parametrize("path", T16.values(), ids=T16.keys())
async def test_t16_a_wild_path_closes_the_session(bench: Lab, path: bytes) -> None:
    """A path no filesystem of ours gives is a breach; nothing of its page is taken in."""
    await refused(bench, {b"good": good_entry(), path: good_entry()}, "entry of")


@pytest.mark.parametrize("path", T17.values(), ids=T17.keys())
async def test_t17_a_reserved_path_closes_the_session(bench: Lab, path: bytes) -> None:
    """Nothing under our own directory comes from a peer, nor under a twin of its name."""
    await refused(bench, {b"good": good_entry(), path: good_entry()}, "reserved")


T16_DATA = {
    "windows drive": b"C:\\x",
    "unc": b"\\\\srv\\s",
    "device path": b"\\\\?\\x",
    "nt path": b"\\??\\x",
    "backslashes up": b"a\\..\\..\\x",
    "lone surrogate": b"\xed\xa0\x80",
    "overlong slash": b"..\xc0\xaf..",
    "control characters": b"\x1b[2J\n\r\x07",
    "alternate stream": b"a:b",
    "desktop.ini": b"desktop.ini",
}


async def test_t16_what_only_looks_wild_is_a_name(tmp_path: Path) -> None:
    """On this system these are names like any other: kept as data, inside the root."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            links = {b"n/" + name: villain.link(b"nowhere") for name in T16_DATA.values()}
            await villain.tell(links)
            for path in links:
                await bench.shows(path)
        tree = await bench.unharmed()
        assert {os.fsencode(name) for name in tree} >= set(links)


VALUES = {
    "t19_a_fifo": (9, {}),
    "t19_setuid": (Kind.FILE, {"executable": 0o4755}),
    "t21_a_short_hash": (Kind.FILE, {"content": b"short"}),
    "t21_a_long_hash": (Kind.FILE, {"content": b"x" * 33}),
    "t23_a_size_of_2_63": (Kind.FILE, {"size": 2**63 - 1}),
    "t23_a_size_beyond_64_bits": (Kind.FILE, {"size": 2**64 - 1}),
    "t23_a_negative_size": (Kind.FILE, {"size": -1}),
    "t29_a_time_too_late": (Kind.FILE, {"mtime_ns": 2**62 + 1}),
    "t29_a_time_too_early": (Kind.FILE, {"mtime_ns": -(2**62) - 1}),
    "t29_a_time_that_is_no_number": (Kind.FILE, {"mtime_ns": float("nan")}),
    "t28_a_height_of_2_63": (Kind.FILE, {"height": 2**63 - 1}),
    "t28_a_stamp_of_2_63": (Kind.FILE, {"stamp_height": 2**63 - 1}),
    "t28_a_stamp_of_a_foreign_dot": (Kind.FILE, {"stamp_dot": (7, 7)}),
    "t19_a_file_with_a_target": (Kind.FILE, {"link": b"x"}),
    "t19_a_link_without_a_target": (Kind.LINK, {"link": b""}),
    "t19_a_link_with_a_nul": (Kind.LINK, {"link": b"a\0b"}),
    "t19_a_link_too_long": (Kind.LINK, {"link": b"x" * 4_096}),
    "t26_a_link_of_another_hash": (Kind.LINK, {"link": b"elsewhere"}),
    "t19_a_directory_with_a_content": (Kind.DIRECTORY, {"content": b"x" * 32}),
}


@pytest.mark.parametrize(("kind", "change"), VALUES.values(), ids=VALUES.keys())
async def test_a_value_no_honest_replica_makes_closes_the_session(
    bench: Lab, kind: int, change: dict[str, object]
) -> None:
    """Kinds, hashes, sizes, times, heights and targets are checked before anything is kept."""
    dot = (AUTHOR, 1)
    await refused(bench, {b"value": Entry({AUTHOR: 1}, {dot: odd_value(kind, change, dot)})})


ENTRIES = {
    "t28_a_seq_of_0": Entry({AUTHOR: 0}, {}),
    "t28_a_seq_of_2_63": Entry({AUTHOR: 2**63}, {}),
    "t28_a_seq_far_ahead": Entry({AUTHOR: limits.SEQ_AHEAD + 10**7}, {}),
    "t28_an_author_of_0": Entry({0: 1}, {}),
    "t28_a_negative_author": Entry({-1: 1}, {}),
    "t27_a_dot_beyond_its_context": Entry(
        {AUTHOR: 1}, {(AUTHOR, 2): file_value(b"x", (AUTHOR, 1))}
    ),
    "t31_nothing_at_all": Entry({}, {}),
    "t21_too_many_values": Entry(
        {AUTHOR: 1_001}, {(AUTHOR, n): file_value(b"x", (AUTHOR, n)) for n in range(1, 1_002)}
    ),
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
async def test_an_entry_no_honest_replica_makes_closes_the_session(
    bench: Lab, entry: Entry
) -> None:
    """Counters cannot be raised to where they overflow, and dots stand in their contexts."""
    await refused(bench, {b"entry": entry})


RAW = {
    "not msgpack": b"\xc1",
    "a text": b"\xa3abc",
    "half an entry": b"\x91\x80",
    "a map of a billion": b"\x92\xdf\x3b\x9a\xca\x00\x80",
    "text as author": b"\x92\x81\xa1x\x01\x80",
    "deep": b"\x92\x80" + b"\x91" * 900 + b"\x90",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
async def test_t32_bytes_that_are_no_entry_close_the_session(bench: Lab, raw: bytes) -> None:
    """An entry is decoded by type; counts in it are not believed."""
    async with bench.attached() as villain:
        items = [Item(1, b"raw", msgspec.Raw(raw))]
        await villain.say(Entries(bench.folder, 1, False, items))
        await villain.end()
    (why,) = await bench.closed()
    assert "not an entry" in why or "not a message" in why


MARKS = {
    "t28_known_far_ahead": {"known": {AUTHOR: limits.SEQ_AHEAD + 10**7}},
    "t28_collected_far_ahead": {"collected": {AUTHOR: limits.SEQ_AHEAD + 10**7}},
    "t23_authors_without_number": {"known": dict.fromkeys(range(1, 24_578), 1)},
    "t23_collected_without_number": {"collected": dict.fromkeys(range(1, 24_578), 1)},
    "t23_acks_without_number": {
        "acks": {b"honest".rjust(32, b"-"): dict.fromkeys(range(1, 24_578), 1)}
    },
}


@pytest.mark.parametrize("claims", MARKS.values(), ids=MARKS.keys())
async def test_a_mark_that_cannot_be_true_closes_the_session(
    bench: Lab, claims: dict[str, Any]
) -> None:
    """Knowledge is not moved to where nobody has been, nor grown without bound."""
    before = await bench.victim.replica.worker(bench.victim.replica.stock.index.facts)
    async with bench.attached() as villain:
        await villain.say(mark_of(bench.folder, **{"known": {}, **claims}))
        await villain.end()
    (why,) = await bench.closed()
    assert "far beyond" in why or "too many authors" in why
    after = await bench.victim.replica.worker(bench.victim.replica.stock.index.facts)
    assert (after.known, after.collected) == (before.known, before.collected)


async def test_the_honest_go_on_after_all_of_this(bench: Lab) -> None:
    """Whatever the cases above sent: both honest replicas are as they were, and sync."""
    assert set(await bench.unharmed()) == {"precious", "alive"}


# ---------------------------------------------------------------------- the disk


T18 = ("link, then file below", "file below, then link", "both at once", "directory first")


@pytest.mark.parametrize("order", T18)
async def test_t18_no_order_writes_through_a_link(tmp_path: Path, order: str) -> None:
    """A link out and a file below its path: whatever comes first, nothing follows the link."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            outside = os.fsencode(bench.outside)
            link = {b"d": villain.link(outside)}
            data = b"authorized"
            below = {b"d/secret": villain.file(data), b"d/new": villain.file(data)}
            villain.gives(data)
            batches = {
                "link, then file below": [link, below],
                "file below, then link": [below, link],
                "both at once": [link | below],
                "directory first": [{b"d": villain.directory()}, below, link],
            }[order]
            for batch in batches:
                await villain.tell(batch)
                await bench.quiet(villain)
            await bench.shows(b"d")
        await bench.unharmed()


async def test_t18_a_directory_moved_onto_a_link_writes_nothing_through_it(
    tmp_path: Path,
) -> None:
    """A directory that moves to where a link stands takes its files along, not through."""
    async with lab(tmp_path) as bench:
        (bench.honest.root / "real").mkdir()
        (bench.honest.root / "real" / "secret").write_text("moved")
        (bench.victim.root / "d").symlink_to(bench.outside)
        await bench.cluster.settled()
        (bench.honest.root / "d").unlink()
        (bench.honest.root / "real").rename(bench.honest.root / "d")

        tree = await bench.unharmed()

        assert tree["d/secret"] == b"moved"


async def test_t18_metadata_is_not_set_through_a_link(tmp_path: Path) -> None:
    """A link put in a file's place on the disk does not lend its target to a new mtime."""
    async with lab(tmp_path) as bench:
        (bench.honest.root / "f").write_text("f")
        await bench.cluster.settled()
        before = bench.secret.stat()
        (bench.victim.root / "f").unlink()
        (bench.victim.root / "f").symlink_to(bench.secret)
        (bench.honest.root / "f").chmod(0o755)
        os.utime(bench.honest.root / "f", ns=(1, 1))
        await bench.unharmed()
        after = bench.secret.stat()
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


async def test_t19_links_are_kept_word_for_word_and_followed_by_nobody(tmp_path: Path) -> None:
    """A link to anywhere is a link with that text; what it points at is not touched or read."""
    async with lab(tmp_path) as bench:
        targets = {
            b"abs": os.fsencode(bench.secret),
            b"up": b"../../outside/secret",
            b"loop": b"loop",
            b"root": b"/",
            b"odd": b"\x1b[2J\xff",
        }
        async with bench.attached() as villain:
            await villain.tell({name: villain.link(target) for name, target in targets.items()})
            for name in targets:
                await bench.shows(name)
        tree = await bench.unharmed()
        for name, target in targets.items():
            assert tree[os.fsdecode(name)] == b"-> " + target


async def test_t19_modes_are_ours_and_t43_new_files_are_private_until_named(
    tmp_path: Path,
) -> None:
    """Of a mode only "executable" travels: no setuid, no write for others, whatever is said."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            villain.gives(b"#!/bin/sh")
            entry = villain.file(b"#!/bin/sh", executable=True)
            await villain.tell({b"run": entry})
            await bench.shows(b"run")
        await bench.unharmed()
        mode = (bench.victim.root / "run").stat().st_mode
        assert mode & 0o7000 == 0
        assert mode & 0o100
        assert mode & 0o022 == 0


async def test_t23_huge_files_take_no_space_and_stop_nobody(tmp_path: Path) -> None:
    """Announced sizes may add up to more than 63 bits: nothing is allocated, all goes on."""
    async with lab(tmp_path) as bench:
        replica = bench.victim.replica
        async with bench.attached() as villain:
            huge = {b"huge/%d" % n: villain.file(b"%d" % n, size=2**62) for n in range(8)}
            await villain.tell(huge)
            async with asyncio.timeout(10):
                while (await replica.status()).need_files < len(huge):
                    await replica.changed.wait(0.1)
            assert (await replica.status()).need_bytes == 8 * 2**62
        await bench.closed()
        bench.nothing_outside()
        (bench.honest.root / "after").write_text("after")
        await bench.shows(b"after")
        used = sum(path.lstat().st_blocks * 512 for path in bench.victim.root.rglob("*"))
        assert used < 1_000_000

        await bench.victim.stop()
        await bench.victim.start()

        assert (await bench.victim.replica.status()).need_bytes == 8 * 2**62


async def test_t27_two_contents_under_one_dot_diverge_nobody(tmp_path: Path) -> None:
    """Who tells two replicas different things under one name makes them agree on one."""
    async with lab(tmp_path) as bench:
        dot = (AUTHOR, 1)
        for site, data in ((bench.victim, b"one"), (bench.honest, b"other")):
            async with bench.attached(site) as villain:
                villain.gives(data)
                await villain.tell({b"f": entry_of(file_value(data, dot), dot)})
                await bench.quiet(villain)
        await bench.closed()
        facts = [
            await site.replica.worker(site.replica.stock.index.entries, [b"f"])
            for site in (bench.victim, bench.honest)
        ]
        assert facts[0] == facts[1]
        bench.nothing_outside()


async def test_t27_a_lying_size_is_noticed(tmp_path: Path) -> None:
    """A file whose size is not what was announced with its hash harms nothing."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            villain.gives(b"short")
            precious = (bench.victim.root / "precious").read_bytes()
            await villain.tell(
                {
                    b"liar": villain.file(b"short", size=100_000),
                    b"copy": villain.file(precious, size=2**50),
                }
            )
            await bench.quiet(villain)
        await bench.closed()
        (bench.honest.root / "after").write_text("after")
        await bench.shows(b"after")
        bench.nothing_outside()


async def test_t28_claims_about_our_author_cost_a_session_not_the_folder(
    tmp_path: Path,
) -> None:
    """A peer that "knows" more of our changes than there are makes us go on under another
    name, once per session; contents, files and honest peers notice nothing."""
    async with lab(tmp_path) as bench:
        replica = bench.victim.replica
        (bench.victim.root / "mine").write_text("mine")
        await bench.cluster.settled()
        async with bench.attached() as villain:
            for _ in range(2):
                facts = await replica.worker(replica.stock.index.facts)
                await villain.claim({facts.author: facts.seq + 5})
                await bench.taken(villain)
            await villain.end()
        assert "nobody made" in (await bench.closed())[0]
        tree = await bench.unharmed()
        assert tree["mine"] == b"mine"


@pytest.mark.parametrize("mtime_ns", [-(2**62), -1, 0, 2**62], ids=str)
async def test_t29_times_decide_nothing(tmp_path: Path, mtime_ns: int) -> None:
    """A file from before the epoch or long after us arrives, or is a problem of its own."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            villain.gives(b"timeless")
            await villain.tell({b"t": villain.file(b"timeless", mtime_ns=mtime_ns)})
            await bench.shows(b"t")
        tree = await bench.unharmed()
        assert tree["t"] == b"timeless"


async def test_t30_what_a_peer_deletes_is_kept_in_history(tmp_path: Path) -> None:
    """A member that claims to know all and lists nothing destroys no bytes."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            await villain.claim(villain.known, full=True)
            await bench.quiet(villain)
        await bench.closed()
        history = bench.victim.root / ".p2psync" / "history"
        kept = [path.read_bytes() for path in history.rglob("*") if path.is_file()]
        assert kept == [b"precious"]
        assert not (bench.victim.root / "precious").exists()
        (bench.honest.root / "after").write_text("after")
        await bench.shows(b"after")


async def test_t31_tombstones_of_what_never_was_are_only_rows(tmp_path: Path) -> None:
    """Ten thousand deletes of nothing delete nothing and keep nobody from syncing."""
    async with lab(tmp_path) as bench:
        async with bench.attached() as villain:
            for start in range(0, 10_000, 2_000):
                graves = {}
                for number in range(start, start + 2_000):
                    author, seq = villain.dot()
                    graves[b"never/%d" % number] = Entry({author: seq}, {})
                await villain.tell(graves)
            await bench.taken(villain)
        tree = await bench.unharmed()
        assert tree["precious"] == b"precious"
        assert not any(name.startswith("never") for name in tree)


# ---------------------------------------------------------------------- helpers


def good_entry() -> Entry:
    """Return an entry nobody could object to."""
    return entry_of(link_value(b"target", (AUTHOR, 1)), (AUTHOR, 1))


def odd_value(kind: int, change: dict[str, object], dot: Dot) -> Value:
    """Return a value that is right but for one field."""
    right: dict[str, object] = {
        "kind": kind,
        "content": b"",
        "size": 0,
        "link": b"",
        "height": 1,
        "executable": False,
        "mtime_ns": 0,
        "stamp_height": 1,
        "stamp_dot": dot,
    }
    if kind == Kind.FILE:
        right["content"] = b"c" * 32
    if kind == Kind.LINK:
        right |= {"content": link_value(b"target", dot).content, "link": b"target"}
    return Value(**{**right, **change})  # type: ignore[arg-type]


async def refused(bench: Lab, entries: dict[bytes, Entry], reason: str = "") -> None:
    """Tell this and be cut off; nothing of it is in the index."""
    async with bench.attached() as villain:
        await villain.tell(entries)
        await villain.end()
    (why,) = await bench.closed()
    assert reason in why
    assert "closed" not in why, "the victim must have ended it"
    replica = bench.victim.replica
    assert not await replica.worker(replica.stock.index.entries, list(entries))
    bench.nothing_outside()
