"""What a paired peer can do by speaking out of turn: lose its session, and nothing else.

One replica and an honest peer of it live through the whole module.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
import pytest_asyncio

from p2psync.core.vector import digest
from p2psync.engine.conversation import FAREWELL_S
from p2psync.protocol import codec, limits
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Chunks,
    Detach,
    Digest,
    Entries,
    Files,
    Goodbye,
    Hello,
    Knowledge,
    Manifest,
    MemberRow,
    Members,
    Message,
    Ping,
    Pong,
    Recognised,
)
from tests.support.hostile import AUTHOR, Lab, Villain, hello, lab, mark_of, page

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = b"f" * 16
ELSEWHERE = b"e" * 16
CONTENT = b"c" * 32
SEED = 20_261_123
FUZZED_SESSIONS = 120


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    """A victim and an honest peer."""
    async with lab(tmp_path_factory.mktemp("hostile")) as made:
        yield made


def attach() -> Attach:
    """Return an Attach of somebody who knows nothing."""
    return Attach(FOLDER, 0, 0, digest({}), digest({}))


def packed(*fields: object) -> bytes:
    """Return a message in no class's form."""
    return msgspec.msgpack.encode(fields)


FIRST: dict[str, Message] = {
    "ping": Ping(1),
    "pong": Pong(1),
    "attach": attach(),
    "recognised": Recognised(FOLDER, True),
    "knowledge": Knowledge(FOLDER, {}, {}),
    "entries": page(FOLDER, {}),
    "mark": mark_of(FOLDER, {}),
    "digest": Digest(FOLDER, digest({}), bytes(32)),
    "detach": Detach(FOLDER),
    "members": Members(FOLDER, []),
    "ask files": AskFiles(1, FOLDER, [CONTENT]),
    "ask manifest": AskManifest(1, FOLDER, CONTENT),
    "ask chunks": AskChunks(1, FOLDER, CONTENT, [(0, 1, CONTENT)]),
    "files": Files(1, [], [], True),
}


@pytest.mark.parametrize("message", FIRST.values(), ids=FIRST.keys())
async def test_t32_nothing_is_taken_before_the_greeting(bench: Lab, message: Message) -> None:
    """Whatever comes before Hello ends the session without an answer."""
    villain = bench.villain()
    await villain.say(message)
    heard = await villain.end()
    (why,) = await bench.closed()
    assert "has no place while greeting" in why
    assert all(isinstance(message, Hello) for message in heard)


BYTES: dict[str, bytes] = {
    "t32_no_msgpack": b"\xc1",
    "t32_a_number": b"\x07",
    "t32_an_empty_array": b"\x90",
    "t32_an_unknown_message": packed(99, 1),
    "t32_a_negative_number": packed(-1, 1),
    "t32_too_few_fields": packed(20, FOLDER),
    "t32_fields_of_other_types": packed(30, "x", FOLDER, 7),
    "t32_two_messages_in_one": codec.encode(Ping(1)) * 2,
    "t32_a_deep_array": b"\x91" * 5_000 + b"\x90",
    "t21_a_count_of_four_billion": b"\x94\x1e\x01\xc4\x10" + FOLDER + b"\xdd\xff\xff\xff\xff",
    "t21_bytes_of_four_gigabytes": b"\x94\x1e\x01\xc6\xff\xff\xff\xff",
    "t21_a_control_message_of_two_mebibytes": packed(
        23, FOLDER, 1, False, [(1, b"p", bytes(2 * limits.MIB))]
    ),
    "t21_more_files_than_a_message_holds": packed(31, 1, [(CONTENT, b"")] * 4_097, [], True),
    "t21_more_asked_than_a_message_holds": packed(30, 1, FOLDER, [CONTENT] * 4_097),
    "t21_a_folder_of_17_bytes": packed(27, bytes(17)),
    "t24_a_chunk_at_a_negative_offset": packed(34, 1, FOLDER, CONTENT, [(-1, 1, CONTENT)]),
    "t24_a_chunk_beyond_any_file": packed(34, 1, FOLDER, CONTENT, [(2**62, 1, CONTENT)]),
    "t24_a_chunk_larger_than_a_frame": packed(
        34, 1, FOLDER, CONTENT, [(0, limits.DATA_FRAME + 1, CONTENT)]
    ),
    "t28_knowledge_of_a_seq_of_2_63": packed(22, FOLDER, {1: 2**63}, {}),
    "t28_knowledge_of_a_negative_seq": packed(22, FOLDER, {1: -1}, {}),
    "t34_a_name_of_101_characters": packed(1, "n" * 101, bytes(16), "s"),
    "t23_more_member_rows_than_a_list_holds": packed(10, FOLDER, [0] * 1_025),
    "t32_a_second_greeting": codec.encode(hello()),
    "t32_a_pong_nobody_waits_for": codec.encode(Pong(77)),
}


@pytest.mark.parametrize("data", BYTES.values(), ids=BYTES.keys())
async def test_what_is_no_message_closes_the_session(
    bench: Lab, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Anything that breaks the form of a message ends the session, with a reason in the log."""
    villain = bench.villain()
    await villain.greet()
    with caplog.at_level(logging.WARNING):
        await villain.raw(data)
        await villain.end()
    (why,) = await bench.closed()
    assert f"closed: {why}" in caplog.text
    assert "bug" not in caplog.text
    bench.nothing_outside()


ORDER: dict[str, tuple[list[Message], str]] = {
    "entries before knowledge": ([page(FOLDER, {})], "before knowledge"),
    "mark before knowledge": ([mark_of(FOLDER, {})], "before knowledge"),
    "attached twice": ([attach(), attach()], "attached twice"),
    "recognised twice": ([Recognised(FOLDER, False)] * 2, "recognised twice"),
    "knowledge before attach": ([Knowledge(FOLDER, {1: 1}, {})], "nobody asked"),
    "knowledge after recognition": ([attach(), Knowledge(FOLDER, {1: 1}, {})], "nobody asked"),
    "an empty page": ([attach(), page(FOLDER, {})], "empty page"),
    "greeting in the middle": ([attach(), hello()], "no place while open"),
}


@pytest.mark.parametrize(("messages", "reason"), ORDER.values(), ids=ORDER.keys())
async def test_t32_messages_out_of_order_close_the_session(
    bench: Lab, messages: list[Message], reason: str
) -> None:
    """Getting acquainted has one order; who does it again, or too early, breaks it."""
    villain = bench.villain()
    await villain.greet()
    await villain.say(*messages)
    await villain.end()
    (why,) = await bench.closed()
    assert reason in why


HARMLESS: dict[str, Message] = {
    "t32_files_nobody_asked_for": Files(7, [(CONTENT, b"x")], [], True),
    "t32_a_manifest_nobody_asked_for": Manifest(7, CONTENT, [1]),
    "t32_chunks_nobody_asked_for": Chunks(7, [(0, b"x")], [], True),
    "t33_detach_of_no_folder": Detach(ELSEWHERE),
    "t33_entries_of_no_folder": page(ELSEWHERE, {}),
    "t33_mark_of_no_folder": mark_of(ELSEWHERE, {}),
    "t33_attach_to_no_folder": Attach(ELSEWHERE, 0, 0, digest({}), digest({})),
    "t37_members_of_no_folder": Members(ELSEWHERE, []),
}


@pytest.mark.parametrize("message", HARMLESS.values(), ids=HARMLESS.keys())
async def test_what_concerns_nobody_is_ignored(bench: Lab, message: Message) -> None:
    """An answer that comes too late, or a folder left a moment ago, is no breach."""
    villain = bench.villain()
    await villain.greet()
    await villain.say(message, Ping(5))
    while (await villain.hear(Pong)).number != 5:
        pass
    await villain.leave()
    (why,) = await bench.closed()
    assert why.startswith("closed")  # by the villain


ASKS: dict[str, Callable[[bytes], Message]] = {
    "files": lambda folder: AskFiles(9, folder, [CONTENT]),
    "manifest": lambda folder: AskManifest(9, folder, CONTENT),
    "chunks": lambda folder: AskChunks(
        9, folder, CONTENT, [(0, 10, CONTENT), (10, 0, CONTENT)]
    ),
    "no files": lambda folder: AskFiles(9, folder, []),
    "no chunks": lambda folder: AskChunks(9, folder, CONTENT, []),
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
async def test_t33_a_foreign_folder_and_a_missing_content_get_the_same_answer(
    bench: Lab, ask: Callable[[bytes], Message]
) -> None:
    """Nobody learns from an answer whether we have a folder."""
    answers = []
    for folder in (FOLDER, ELSEWHERE):
        villain = bench.villain()
        await villain.greet()
        await villain.say(ask(folder))
        answers.append([await villain.hear(Files | Manifest | Chunks)])  # type: ignore[arg-type]
        await villain.leave()
    await bench.closed()
    assert answers[0] == answers[1]


async def test_t24_a_peer_that_asks_and_does_not_listen_is_bounded(bench: Lab) -> None:
    """At most so many requests are open; the next ends the session."""
    villain = bench.villain()
    await villain.greet()
    await villain.deaf()
    contents = [bytes([n]) * 32 for n in range(200)] * 20
    for number in range(200):
        if bench.over():
            break
        await villain.say(AskFiles(number, FOLDER, contents))
    (why,) = await bench.closed()
    assert "too many requests" in why


async def test_t24_the_same_content_asked_a_thousand_times_in_one_request_comes_once(
    bench: Lab,
) -> None:
    """A short request does not make a long answer."""
    villain = bench.villain()
    await villain.greet()
    content = bench.content(b"precious")
    await villain.say(AskFiles(1, FOLDER, [content] * 4_096))
    answer = await villain.hear(Files)
    assert answer == Files(1, [(content, b"precious")], [], True)
    await villain.leave()
    await bench.closed()


CHUNKS: dict[str, list[tuple[int, int, bytes]]] = {
    "overlapping": [(0, 8, CONTENT), (1, 7, CONTENT), (2, 6, CONTENT)],
    "beyond the end": [(2**40, 8, CONTENT)],
    "nothing": [(0, 0, CONTENT)],
    "many of half a mebibyte": [(n, limits.MIB // 2, CONTENT) for n in range(4_096)],
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS.keys())
async def test_t24_chunks_that_are_not_there_cost_one_look(
    bench: Lab, chunks: list[tuple[int, int, bytes]]
) -> None:
    """Odd ranges are gone; what follows a gone one is not even read."""
    villain = bench.villain()
    await villain.greet()
    began = time.process_time()
    await villain.say(AskChunks(1, FOLDER, bench.content(b"precious"), chunks))
    answer = await villain.hear(Chunks)
    assert answer == Chunks(1, [], [offset for offset, _, _ in chunks], True)
    assert time.process_time() - began < 1.0
    await villain.leave()
    await bench.closed()


async def test_t24_a_chunk_larger_than_any_closes_the_session(bench: Lab) -> None:
    """We cut no file into chunks of four mebibytes, so nobody can need one."""
    villain = bench.villain()
    await villain.greet()
    ask = AskChunks(1, FOLDER, CONTENT, [(0, limits.CHUNK_BYTES + 1, CONTENT)])
    await villain.say(ask)
    await villain.end()
    assert "larger than any" in (await bench.closed())[0]


async def test_t25_a_peer_that_takes_nothing_is_let_go_in_time(bench: Lab) -> None:
    """Who does not read what we send cannot keep us from ending the session."""
    villain = bench.villain()
    await villain.greet()
    await villain.deaf()
    for number in range(30):
        await villain.say(AskFiles(number, FOLDER, [CONTENT] * 4_096))
    began = time.monotonic()
    bench.conversations[-1].close("enough")
    assert await bench.closed() == ["enough"]
    assert time.monotonic() - began < FAREWELL_S + 2.0


async def test_t24_a_flood_of_digests_lists_everything_once(bench: Lab) -> None:
    """Equal knowledge and another digest start a full listing, but not one per message."""
    replica = bench.victim.replica
    async with bench.attached() as villain:
        facts = await replica.worker(replica.stock.index.facts)
        await villain.claim(facts.known)
        await bench.taken(villain)
        lie = Digest(FOLDER, digest(facts.known), bytes(32))
        await villain.say(*[lie] * 50, Detach(ELSEWHERE))
        await villain.claim({AUTHOR: 1})
        await bench.taken(villain)
        listed = [m for m in villain.heard if isinstance(m, Entries) and m.full]
        assert len(listed) <= 1
    await bench.closed()


async def test_t34_a_goodbye_cannot_forge_the_log(
    bench: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """A reason is a text for the log; it ends the session in order and escapes nothing."""
    villain = bench.villain()
    await villain.greet()
    await villain.say(Goodbye("\x1b[2J\nERROR all is lost"))
    await villain.end()
    (why,) = await bench.closed()
    assert why == "\x1b[2J\nERROR all is lost"  # escaped where it is written: see agent.logs
    assert "all is lost" not in caplog.text


# ---------------------------------------------------------------------- fuzz


def transcript() -> list[bytes]:
    """Return one side of a whole, valid session."""
    row = MemberRow(bytes(32), bytes(32), "name", "rw", bytes(32), 1, False, bytes(64))
    villain = _Maker()
    return [
        codec.encoder.encode(message)
        for message in (
            hello(),
            Members(ELSEWHERE, [row]),
            Recognised(FOLDER, False),
            attach(),
            page(FOLDER, villain.entries()),
            mark_of(FOLDER, {AUTHOR: 3}, acks={bytes(32): {1: 1}, b"h" * 32: None}),
            AskFiles(1, FOLDER, [CONTENT]),
            AskManifest(2, FOLDER, CONTENT),
            AskChunks(3, FOLDER, CONTENT, [(0, 5, CONTENT)]),
            Ping(1),
            Digest(FOLDER, digest({}), bytes(32)),
            Detach(FOLDER),
            Goodbye("done"),
        )
    ]


class _Maker(Villain):
    """Makes entries without a channel."""

    def __init__(self) -> None:
        self._seq = 0

    def entries(self) -> dict[bytes, object]:
        """Return one entry of each kind."""
        return {
            b"fuzz/file": self.file(b"x"),
            b"fuzz/link": self.link(b"t"),
            b"fuzz/dir": self.directory(),
        }


def spoil(random_: random.Random, messages: list[bytes]) -> list[bytes]:
    """Return the session with one to four things wrong."""
    messages = list(messages)
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(messages))
        data = bytearray(messages[at])
        match random_.randrange(7):
            case 0 | 1:
                data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
                messages[at] = bytes(data)
            case 2:
                messages[at] = bytes(data[: random_.randrange(1, len(data) + 1)])
            case 3:
                messages.insert(at, messages[at])
            case 4:
                other = random_.randrange(len(messages))
                messages[at], messages[other] = messages[other], messages[at]
            case 5:
                if len(messages) > 1:
                    del messages[at]
            case 6:
                messages[at] = random_.randbytes(random_.randint(1, 60))
    return messages


async def test_t32_spoiled_sessions_end_and_harm_nothing(
    bench: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """Valid sessions with bits flipped, cut, doubled, swapped, left out: no bug shows, no
    task is left, and the honest peers go on."""
    chance = random.Random(SEED)
    valid = transcript()
    tasks = len(asyncio.all_tasks())
    for _ in range(FUZZED_SESSIONS):
        villain = bench.villain()
        for data in spoil(chance, valid):
            await villain.raw(data)
        await villain.leave()
        await bench.closed()
    assert "bug" not in caplog.text
    assert "internal" not in caplog.text
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > tasks:
            await bench.victim.replica.changed.wait(0.02)
    (bench.honest.root / "after").write_text("after")
    await bench.shows(b"after")
    bench.nothing_outside()


async def test_the_honest_go_on_after_all_of_this(bench: Lab) -> None:
    """Whatever the cases above sent: what was precious is there, and syncing goes on."""
    assert (bench.victim.root / "precious").read_bytes() == b"precious"
    (bench.honest.root / "last").write_text("last")
    await bench.shows(b"last")
    assert os.listdir(bench.outside) == ["secret"]
