"""What a paired peer can do with contents: waste its own session, not our files or our time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from blake3 import blake3

from p2psync.core.entry import Entry
from p2psync.engine import link
from p2psync.protocol import limits
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Chunks,
    Files,
    Manifest,
    Message,
    Ping,
    Pong,
)
from tests.support.hostile import START, VILLAIN, Lab, Villain, lab, link_value, page

SIZE = 3_000_000
CHUNK = 1_000_000


def large_file() -> bytes:
    """Return bytes of a large file."""
    return os.urandom(SIZE)


def manifest_of(data: bytes, request: int = 0) -> Manifest:
    """Return a true manifest, in chunks of a megabyte."""
    bounds = [*range(0, len(data), CHUNK), len(data)]
    pieces = [data[low:high] for low, high in pairwise(bounds)]
    return Manifest(
        request, b"".join(blake3(p).digest() for p in pieces), [len(p) for p in pieces]
    )


class Giver(Villain):
    """Answers requests for one large file as told: truly, or with a lie."""

    data = b""
    manifest: Manifest | None = None
    chunk_lie = ""
    silent = False
    asked: list[Message]

    async def answer(self, ask: Message) -> None:
        """Answer what the victim asks for."""
        if not hasattr(self, "asked"):
            self.asked = []
        self.asked.append(ask)
        if self.silent:
            return
        match ask:
            case AskManifest(request) if self.manifest is not None:
                told = self.manifest
                await self.say(Manifest(request, told.hashes, told.sizes, told.spans))
            case AskChunks(request, _, _, wanted):
                for message in self.chunks(request, wanted):
                    await self.say(message)
            case _:
                await super().answer(ask)

    def chunks(self, request: int, wanted: Sequence[tuple[int, int, bytes]]) -> list[Message]:
        """Return the answers to a request for chunks, with the lie this giver tells."""
        true = [(at, self.data[at : at + size]) for at, size, _ in wanted]
        match self.chunk_lie:
            case "other bytes":
                true = [(at, bytes(len(data))) for at, data in true]
            case "too short":
                true = [(at, data[:-1]) for at, data in true]
            case "too long":
                true = [(at, data + b"x") for at, data in true]
            case "another place":
                true = [(at + 1, data) for at, data in true]
            case "another kind":
                return [Files(request, [], [], True)]
            case "nothing at all":
                return [Chunks(request, [], [], True)]
        return [Chunks(request, true, [], True)]


@contextlib.asynccontextmanager
async def giving(bench: Lab) -> AsyncIterator[Giver]:
    """Give a villain that answers requests and has attached."""
    villain = bench.villain(kind=Giver)
    await villain.greet()
    await villain.attach()
    try:
        yield villain
    finally:
        await villain.leave()


async def alone(bench: Lab) -> None:
    """Cut the line to the honest peer, so that the villain is the only source."""
    await bench.cluster.cut("victim", "honest")


async def comes_from_the_honest(bench: Lab, path: str, data: bytes) -> None:
    """Join the honest peer, which has the content elsewhere: now the file arrives."""
    (bench.honest.root / "has it").write_bytes(data)
    await bench.honest.replica.survey.now()
    assert not (bench.victim.root / path).exists()
    bench.cluster.join("victim", "honest")
    tree = await bench.unharmed()
    assert tree[path] == data


SMALL_LIES = {
    "other bytes": b"other bytes",
    "nothing": b"",
    "one byte more": b"true bytes!",
    "another large file": bytes(limits.SMALL_FILE + 1),
}


@pytest.mark.parametrize("lie", SMALL_LIES.values(), ids=SMALL_LIES.keys())
async def test_t26_wrong_bytes_of_a_small_file_end_the_session(
    tmp_path: Path, lie: bytes
) -> None:
    """What does not hash to what was asked for is dropped; another peer gives the file."""
    async with lab(tmp_path) as bench:
        await alone(bench)
        async with giving(bench) as villain:
            villain.gives(b"true bytes", lie)
            await villain.tell({b"f": villain.file(b"true bytes")})
            await villain.end()
        assert (await bench.closed())[0] == "bytes of another file than asked for"
        await comes_from_the_honest(bench, "f", b"true bytes")


CHUNK_LIES = ("other bytes", "too short", "too long", "another place", "another kind")


@pytest.mark.parametrize("lie", CHUNK_LIES)
async def test_t26_wrong_chunks_end_the_session(tmp_path: Path, lie: str) -> None:
    """A chunk that is not what the manifest says is dropped; another peer gives the rest."""
    async with lab(tmp_path) as bench:
        data = large_file()
        await alone(bench)
        async with giving(bench) as villain:
            villain.data, villain.manifest, villain.chunk_lie = data, manifest_of(data), lie
            await villain.tell({b"f": villain.file(data)})
            await villain.end()
        assert "closed" not in (await bench.closed())[0]
        await comes_from_the_honest(bench, "f", data)


async def test_t26_a_manifest_of_another_file_is_forgotten(tmp_path: Path) -> None:
    """Chunks that fit a false manifest make a false file: nothing of it is shown or kept, the
    liar is cut off, and the true file can still come."""
    async with lab(tmp_path) as bench:
        data, other = large_file(), large_file()
        await alone(bench)
        async with giving(bench) as villain:
            villain.data, villain.manifest = other, manifest_of(other)
            await villain.tell({b"f": villain.file(data)})
            await villain.end()
        assert "manifest of another file" in (await bench.closed())[0]
        await comes_from_the_honest(bench, "f", data)


BAD_MANIFESTS = {
    "t21_sizes_that_do_not_add_up": Manifest(0, b"h" * 64, [1, 2]),
    "t23_one_chunk_for_all": Manifest(0, b"h" * 32, [SIZE]),
    "t21_a_chunk_of_nothing": Manifest(0, b"h" * 64, [0, SIZE]),
    "t21_a_difference_from_nothing": Manifest(0, b"", [], [(0, 0, 3)]),
    "t21_a_difference_of_nothing": Manifest(0, b"h" * 32, [SIZE], [(0, 0, 0)]),
}


@pytest.mark.parametrize("manifest", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
async def test_a_manifest_that_cannot_be_ends_the_session(
    tmp_path: Path, manifest: Manifest
) -> None:
    """A manifest adds up to the announced size, in chunks we could ask for."""
    async with lab(tmp_path) as bench:
        data = large_file()
        await alone(bench)
        async with giving(bench) as villain:
            villain.data, villain.manifest, villain.chunk_lie = data, manifest, "other bytes"
            await villain.tell({b"f": villain.file(data)})
            await villain.end()
        assert "closed" not in (await bench.closed())[0]
        await comes_from_the_honest(bench, "f", data)


async def test_t26_another_kind_of_answer_ends_the_session(tmp_path: Path) -> None:
    """Files for a manifest: the request fails, the replica goes on."""

    class Confused(Giver):
        async def answer(self, ask: Message) -> None:
            if isinstance(ask, AskManifest):
                await self.say(Files(ask.request, [], [], True))
            elif isinstance(ask, AskFiles):
                await self.say(Manifest(ask.request, b"", []))

    for size in (10, SIZE):
        (tmp_path / str(size)).mkdir()
        async with lab(tmp_path / str(size)) as bench:
            data = os.urandom(size)
            await alone(bench)
            villain = bench.villain(kind=Confused)
            await villain.greet()
            await villain.attach()
            await villain.tell({b"f": villain.file(data)})
            await villain.end()
            assert "another answer" in (await bench.closed())[0]
            await comes_from_the_honest(bench, "f", data)


async def test_t25_nobody_waits_for_a_peer_that_does_not_answer(tmp_path: Path) -> None:
    """A villain that lets twenty small and four large requests hang keeps away only what it
    alone has: what the honest peer has arrives meanwhile."""
    async with lab(tmp_path) as bench, giving(bench) as villain:
        villain.silent = True
        for number in range(20):
            await villain.tell({b"s%d" % number: villain.file(b"small %d" % number)})
            await bench.taken(villain)
        for number in range(4):
            await villain.tell({b"l%d" % number: villain.file(b"%d" % number, size=SIZE)})
            await bench.taken(villain)
        data = large_file()
        (bench.honest.root / "small").write_text("small")
        (bench.honest.root / "large").write_bytes(data)
        await bench.shows(b"small")
        await bench.shows(b"large")
        assert (bench.victim.root / "large").read_bytes() == data


async def test_t25_a_peer_that_never_answers_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a time without any answer the session ends, and others are asked."""
    monkeypatch.setattr(link, "ANSWER_S", 0.3)
    async with lab(tmp_path) as bench:
        await alone(bench)
        async with giving(bench) as villain:
            villain.silent = True
            await villain.tell({b"f": villain.file(b"f")})
            await villain.end()
        assert "does not answer" in (await bench.closed())[0]
        await comes_from_the_honest(bench, "f", b"f")


async def test_a_slow_line_is_no_peer_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as some request is answered now and then, the others may wait their turn."""
    monkeypatch.setattr(link, "ANSWER_S", 0.3)

    class Slow(Giver):
        async def answer(self, ask: Message) -> None:
            if isinstance(ask, AskChunks):
                for at, size, _ in ask.chunks:
                    await asyncio.sleep(0.2)
                    part = [(at, self.data[at : at + size])]
                    await self.say(Chunks(ask.request, part, [], False))
                await self.say(Chunks(ask.request, [], [], True))
            else:
                await super().answer(ask)

    async with lab(tmp_path) as bench:
        await alone(bench)
        villain = bench.villain(kind=Slow)
        villain.data = os.urandom(6 * CHUNK)
        villain.manifest = manifest_of(villain.data)
        await villain.greet()
        await villain.attach()
        await villain.tell({b"f": villain.file(villain.data)})
        await bench.shows(b"f")
        assert not villain.cut_off
        await villain.leave()


async def test_t25_who_says_much_does_not_keep_others_from_being_heard(
    tmp_path: Path,
) -> None:
    """Sixty pages that are work to take in: what an honest peer says is taken in between."""
    async with lab(tmp_path) as bench, bench.attached() as villain:
        replica = bench.victim.replica

        async def flood() -> None:
            for number in range(60):
                dots = [villain.dot() for _ in range(600)]
                live = {dot: link_value(b"%d-%d" % dot, dot) for dot in dots}
                await villain.say(
                    page(
                        bench.folder,
                        {b"work/%d" % number: Entry(dict([dots[-1]]), live)},
                        after=number,
                    )
                )

        flooding = asyncio.create_task(flood())
        (bench.honest.root / "heard").write_text("x")
        await bench.shows(b"heard")
        at = await replica.worker(replica.stock.index.cursor, VILLAIN)
        assert at < (START, 60), "it should have come in between"
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)


async def test_t24_empty_answers_do_not_make_us_ask_for_ever(tmp_path: Path) -> None:
    """Who answers with nothing at all is taken to have nothing: it is not asked again."""

    class Empty(Giver):
        async def answer(self, ask: Message) -> None:
            self.asked.append(ask)
            match ask:
                case AskFiles(request):
                    await self.say(Files(request, [], [], True))
                case _:
                    await super().answer(ask)

    async with lab(tmp_path) as bench:
        await alone(bench)
        villain = bench.villain(kind=Empty)
        villain.asked = []
        villain.chunk_lie = "nothing at all"
        villain.data = large_file()
        villain.manifest = manifest_of(villain.data)
        await villain.greet()
        await villain.attach()
        await villain.tell({b"f": villain.file(b"f"), b"g": villain.file(villain.data)})
        await bench.taken(villain)
        replica = bench.victim.replica
        async with asyncio.timeout(10):
            while not any(len(link.gone) == 2 for link in replica.links):
                await replica.changed.wait(0.02)
        asked = len(villain.asked)
        assert asked <= 8
        await villain.say(Ping(3))
        await villain.hear(Pong)
        assert len(villain.asked) == asked
        await villain.leave()


async def test_t24_more_answers_than_asked_for_do_not_block_the_session(
    tmp_path: Path,
) -> None:
    """After the last answer to a request, further ones go nowhere, and the rest goes on."""

    class Talker(Giver):
        async def answer(self, ask: Message) -> None:
            if isinstance(ask, AskFiles):
                found = [(c, self._gives[c]) for c in ask.contents]
                for _ in range(30):
                    await self.say(Files(ask.request, found, [], True))

    async with lab(tmp_path) as bench:
        await alone(bench)
        villain = bench.villain(kind=Talker)
        await villain.greet()
        await villain.attach()
        for number in range(5):
            data = b"%d" % number
            villain.gives(data)
            await villain.tell({data: villain.file(data)})
            await bench.shows(data)
        await villain.leave()


async def test_t43_what_is_under_way_is_nobody_elses(tmp_path: Path) -> None:
    """A partial file lies in a directory of ours, and is readable by the owner only."""

    class Slow(Giver):
        async def answer(self, ask: Message) -> None:
            if isinstance(ask, AskChunks):
                (at, size, _) = ask.chunks[0]
                first = [(at, self.data[at : at + size])]
                await self.say(Chunks(ask.request, first, [], False))
            else:
                await super().answer(ask)

    async with lab(tmp_path) as bench:
        await alone(bench)
        villain = bench.villain(kind=Slow)
        villain.data = large_file()
        villain.manifest = manifest_of(villain.data)
        await villain.greet()
        await villain.attach()
        await villain.tell({b"f": villain.file(villain.data)})
        ours = bench.victim.root / ".p2psync"
        async with asyncio.timeout(10):
            while not (parts := [p for p in (ours / "staging").iterdir() if p.is_file()]):
                await bench.victim.replica.changed.wait(0.02)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in parts)
        assert ours.stat().st_mode & 0o077 == 0
        assert (ours / "staging").stat().st_mode & 0o077 == 0
        await villain.leave()


async def test_a_file_just_saved_overtakes_the_chunks_of_a_large_one(tmp_path: Path) -> None:
    """Whoever asks for much waits for much, and not for the note that was asked for last."""
    async with lab(tmp_path) as bench:
        data = large_file()
        (bench.victim.root / "film").write_bytes(data)
        (bench.victim.root / "note").write_bytes(b"note")
        await bench.cluster.settled()
        async with bench.attached() as asker:
            film = bench.content(data)
            await asker.say(AskManifest(1, bench.folder, film))
            sizes = (await asker.hear(Manifest)).sizes
            wanted = [
                (at, size, bench.content(data[at : at + size]))
                for at, size in zip(accumulate(sizes, initial=0), sizes, strict=False)
            ]
            for number in range(8):
                await asker.say(AskChunks(number, bench.folder, film, wanted))
            await asker.say(AskFiles(9, bench.folder, [bench.content(b"note")]))
            assert (await asker.hear(Files)).files == [(bench.content(b"note"), b"note")]
            given = [m for m in asker.heard if isinstance(m, Chunks) and m.last]
            assert len(given) < 4
