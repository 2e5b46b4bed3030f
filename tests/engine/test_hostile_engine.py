"""What strangers, peers of another folder and devices that were revoked can do to an engine.

Everything goes over real TLS on loopback, to a real engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import msgspec
import pytest

from p2psync.agent import api, logs
from p2psync.cli import text
from p2psync.core.ids import FolderId
from p2psync.core.vector import digest
from p2psync.engine.accepting import default_target
from p2psync.engine.conversation import FAREWELL_S
from p2psync.engine.peer import MEETINGS
from p2psync.errors import ChannelClosedError
from p2psync.net.handshake import authenticate_dialled
from p2psync.net.tls import dial
from p2psync.protocol import codec, limits, members
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Chunks,
    Detach,
    Files,
    Hello,
    Manifest,
    Members,
    Message,
    Ping,
    Pong,
)
from p2psync.protocol.pairkey import KnownPeer
from tests.support.engines import FOLDER, HERE, PATIENCE_S, Machine, Town, town
from tests.support.hostile import Lab, Villain, hello, page
from tests.support.protocol import device

VILLAIN = device("villain")
SECRET, NOWHERE = FolderId(b"s" * 16), FolderId(b"n" * 16)


async def pair(made: Town, *, with_villain: bool = True) -> tuple[Machine, Machine, Path]:
    """Let a and b share a folder, with a villain as third member; return a's root too."""
    a, b = made.machines
    root = await a.founds()
    a.invites(b)
    if with_villain:
        a.invites(VILLAIN)
    b.joins(a)
    await a.meets(b)
    await b.meets(a)
    return a, b, root


async def still_syncing(a: Machine, b: Machine, root: Path) -> None:
    """What is written at a arrives at b."""
    (root / "alive").write_text("alive")
    await b.shows(b.path / "folder" / "alive", "alive")


# ---------------------------------------------------------------------- strangers

STRANGERS = {
    "t13_nothing": b"",
    "t13_random_bytes": bytes(range(200)),
    "t13_an_empty_opening": b"\x01\x00",
    "t21_a_long_message": bytes(limits.UNAUTHENTICATED_BYTES + 1),
    "t32_a_greeting_before_authentication": codec.encode(hello()),
    "t32_a_request_before_authentication": codec.encode(AskFiles(1, bytes(FOLDER), [])),
    "t32_an_attach_before_authentication": codec.encode(
        Attach(bytes(FOLDER), 0, 0, digest({}), digest({}))
    ),
}


@pytest.mark.parametrize("first", STRANGERS.values(), ids=STRANGERS.keys())
async def test_a_stranger_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """Whatever somebody says before it has proven who it is: no byte comes back."""
    async with town(tmp_path, monkeypatch, "a") as made:
        (a,) = made.machines
        await a.founds()
        channel = await dial(HERE, made.wire.networks[a.id].listener.port, PATIENCE_S)
        if first:
            await channel.send(first)
            with pytest.raises(ChannelClosedError):
                await channel.receive()
        await channel.close()
        assert not a.engine.peers


async def test_t03_t08_other_keys_are_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is no member, or claims to be one without its key, does not get in."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made, with_villain=False)
        assert await made.refuses(VILLAIN, a)

        class Thief:
            """Has b's pair key with a, but not b's signing key."""

            device = b.id
            sign = staticmethod(VILLAIN.sign)

        channel = await dial(HERE, made.wire.networks[a.id].listener.port, PATIENCE_S)
        known = KnownPeer(a.id, b.identity.exchange(a.identity.key, a.id))
        await authenticate_dialled(channel, Thief(), known)  # type: ignore[arg-type]
        with pytest.raises(ChannelClosedError):
            await channel.receive()
        await still_syncing(a, b, root)


async def test_t05_a_replayed_opening_replaces_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The opening of a peer, sent again by somebody else, is answered and leads nowhere: the
    peer's session stays."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        port = made.wire.networks[a.id].listener.port
        recorded: list[bytes] = []
        first = await dial(HERE, port, PATIENCE_S)
        send = first.send

        async def record(message: bytes) -> None:
            recorded.append(message)
            await send(message)

        monkeypatch.setattr(first, "send", record)
        known = KnownPeer(a.id, VILLAIN.exchange(a.identity.key, a.id))
        await authenticate_dialled(first, VILLAIN, known)
        villain = Villain(first, bytes(FOLDER))
        await villain.greet()

        replay = await dial(HERE, port, PATIENCE_S)
        await replay.send(recorded[0])
        await replay.receive()
        await replay.send(recorded[1])
        with pytest.raises(ChannelClosedError):
            await replay.receive()
        await villain.say(Ping(1))
        await villain.hear(Pong)
        await villain.leave()
        await still_syncing(a, b, root)


async def test_t10_a_peer_that_opens_channels_without_end_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of channels that never greet a few are kept waiting; the session that stands stays."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        mute = [await made.dials(VILLAIN, a) for _ in range(3 * MEETINGS)]
        async with asyncio.timeout(PATIENCE_S):
            while sum(one.cut_off for one in mute) < 2 * MEETINGS:
                await a.engine.changed.wait(0.02)
        assert not villain.cut_off
        for one in [villain, *mute]:
            await one.leave()
        await still_syncing(a, b, root)


async def test_t01_t02_a_flood_of_sightings_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand announcements of a peer at false places: few are kept, no task piles up,
    and the session with the real one goes on."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made, with_villain=False)
        peer = a.engine.peers[b.id]
        before, tasks = peer.conversation, len(asyncio.all_tasks())
        for number in range(10_000):
            peer.seen([("127.0.0.1", 1 + number % 60_000)])
        assert len(peer.addresses) <= 16
        assert len(asyncio.all_tasks()) <= tasks + 2
        await still_syncing(a, b, root)
        assert peer.conversation is before


# ---------------------------------------------------------------------- folders

CONTENT = Lab.content(b"top secret")
ASKS: dict[str, tuple[Message, Message]] = {
    "files": (AskFiles(1, b"", [CONTENT]), Files(1, [], [CONTENT], True)),
    "manifest": (AskManifest(1, b"", CONTENT), Manifest(1, b"", [])),
    "chunks": (
        AskChunks(1, b"", CONTENT, [(0, 10, CONTENT)]),
        Chunks(1, [], [0], True),
    ),
}


def about(message: Message, folder: FolderId) -> Message:
    """Return the message, about this folder."""
    return msgspec.structs.replace(message, folder=bytes(folder))


@pytest.mark.parametrize(("ask", "answer"), ASKS.values(), ids=ASKS.keys())
async def test_t33_t36_another_folders_contents_cannot_be_had_or_felt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Message, answer: Message
) -> None:
    """A member of one folder asks for a content of another: by the other folder, by its own
    folder, by a folder that is nowhere, the answer is the same, word for word."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        hidden = await a.founds(SECRET, "hidden")
        (hidden / "secret").write_bytes(b"top secret")
        await a.replica(SECRET).survey.now()
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        for folder in (FOLDER, SECRET, NOWHERE):
            await villain.say(about(ask, folder))
            assert await villain.hear(type(answer)) == answer
        for folder in (SECRET, NOWHERE):
            await villain.say(
                Attach(bytes(folder), 0, 0, digest({}), digest({})),
                page(bytes(folder), {b"x": villain.link(b"x")}),
                Members(bytes(folder), [members.found(VILLAIN, folder, "villain")]),
            )
        await villain.say(Ping(9))
        while (await villain.hear(Pong)).number != 9:
            pass
        told = {m.folder for m in villain.heard if isinstance(m, Attach | Members)}
        assert told == {bytes(FOLDER)}
        refused = [m.folder for m in villain.heard if isinstance(m, Detach)]
        assert refused == [bytes(SECRET), bytes(NOWHERE)]
        await villain.leave()
        await still_syncing(a, b, root)
        assert os.listdir(hidden) != []
        assert not (hidden / "x").is_symlink()


async def test_t36_a_content_is_not_taken_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer announces a file whose content stands in a folder it does not share: we ask it
    for the bytes, as if we did not have them."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        hidden = await a.founds(SECRET, "hidden")
        (hidden / "secret").write_bytes(b"top secret")
        await a.replica(SECRET).survey.now()
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        await villain.attach()
        await villain.tell({b"probe": villain.file(b"top secret")})
        ask = await villain.hear(AskFiles)
        assert ask.contents == [CONTENT]
        assert not (root / "probe").exists()
        await villain.leave()
        await still_syncing(a, b, root)


async def test_t38_no_folder_comes_uninvited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer makes us a member of a folder of its own and tells all about it: nothing is
    made on the disk, no replica, no member list."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        before = sorted(os.listdir(a.path))
        rows = [members.found(VILLAIN, NOWHERE, "/etc/cron.d")]
        rows.append(
            members.invite(VILLAIN, NOWHERE, rows, VILLAIN.device, a.id, a.identity.key, "a")
        )
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        await villain.say(
            Members(bytes(NOWHERE), rows),
            Attach(bytes(NOWHERE), 0, 0, digest({}), digest({})),
            page(bytes(NOWHERE), {b"x": villain.link(b"x")}),
            Ping(9),
        )
        while (await villain.hear(Pong)).number != 9:
            pass
        await villain.leave()
        assert [replica.record.folder for replica in a.engine.replicas.values()] == [FOLDER]
        assert a.engine.membership.rows(NOWHERE) == []
        assert sorted(os.listdir(a.path)) == before
        await still_syncing(a, b, root)


TARGETS = {
    "photos": b"photos",
    "two words": b"two words",
    "../../etc": None,
    "/etc": None,
    "a/b": None,
    "..": None,
    ".": None,
    ".ssh": None,
    ".p2psync": None,
    "": None,
    "x" * 101: None,
    "tab\tname": None,
    "line\nbreak": None,
    "\x1b[2J": None,
    "abc\u202etxt": None,
    "zero\u200bwidth": None,
    "nul\0": None,
}


@pytest.mark.parametrize(("name", "plain"), TARGETS.items(), ids=map(ascii, TARGETS))
def test_t38_a_peer_does_not_choose_where_a_folder_goes(name: str, plain: bytes | None) -> None:
    """The default place is the folder's name only if that is one plain component."""
    assert default_target(name, b"/here") == b"/here/" + (plain or b"p2psync-folder")


# ---------------------------------------------------------------------- revoked


async def test_t37_a_revoked_peer_is_cut_within_a_second_and_stays_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`forget` ends the session at once, on every device that hears of it; the keys open
    nothing any more, and what it gave stays."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        at_a, at_b = await made.dials(VILLAIN, a), await made.dials(VILLAIN, b)
        for villain in (at_a, at_b):
            await villain.greet()
        await at_a.attach()
        at_a.gives(b"a gift")
        await at_a.tell({b"gift": at_a.file(b"a gift")})
        await b.shows(b.path / "folder" / "gift", "a gift")

        began = time.monotonic()
        await a.engine.forget(str(VILLAIN.device), None)
        await at_a.end()
        await at_b.end()
        assert time.monotonic() - began < 1.0

        assert await made.refuses(VILLAIN, a)
        assert await made.refuses(VILLAIN, b)
        await still_syncing(a, b, root)
        assert (root / "gift").read_text() == "a gift"


async def test_t37_a_revoked_peer_that_does_not_listen_is_cut_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving our goodbye unread keeps no session alive."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        (root / "large").write_bytes(os.urandom(20_000_000))
        await a.replica().survey.now()
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        await villain.deaf()
        content = Lab.content((root / "large").read_bytes())
        await villain.say(*[AskManifest(n, bytes(FOLDER), content) for n in range(30)])
        peer = a.engine.peers[VILLAIN.device]
        await a.until(lambda: peer.conversation is not None)
        conversation = peer.conversation
        assert conversation is not None
        began = time.monotonic()
        await a.engine.forget(str(VILLAIN.device), None)
        await a.until(lambda: conversation.over)
        assert time.monotonic() - began < FAREWELL_S
        await villain.leave()
        await still_syncing(a, b, root)


async def test_t37_revoked_in_one_folder_means_that_folder_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session goes on for the other folder; about the one it was revoked in, the peer is
    told no more, gets what a stranger gets, and changes nothing."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        other = await a.founds(SECRET, "other")
        a.invites(VILLAIN, SECRET)
        (root / "here").write_bytes(b"in the folder")
        (other / "there").write_bytes(b"in the other")
        await a.replica().survey.now()
        await a.replica(SECRET).survey.now()
        here, there = Lab.content(b"in the folder"), Lab.content(b"in the other")
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        await villain.attach()
        await villain.say(AskFiles(1, bytes(FOLDER), [here]))
        assert (await villain.hear(Files)).files == [(here, b"in the folder")]

        a.engine.membership.revoke(FOLDER, VILLAIN.device)
        assert (await villain.hear(Detach)).folder == bytes(FOLDER)

        await villain.say(AskFiles(2, bytes(FOLDER), [here]))
        assert await villain.hear(Files) == Files(2, [], [here], True)
        await villain.tell({b"too late": villain.link(b"x")})
        await villain.say(AskFiles(3, bytes(SECRET), [there]))
        assert (await villain.hear(Files)).files == [(there, b"in the other")]
        await villain.leave()
        await still_syncing(a, b, root)
        assert not (root / "too late").is_symlink()


async def test_t37_what_is_under_way_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transfer to a peer that is revoked in the middle of it ends there."""
    async with town(tmp_path, monkeypatch, "a") as made:
        (a,) = made.machines
        root = await a.founds()
        await a.founds(SECRET, "other")
        for folder in (FOLDER, SECRET):  # two, so that the session stays
            a.invites(VILLAIN, folder)
        blocks = [os.urandom(limits.SMALL_FILE) for _ in range(300)]
        for number, block in enumerate(blocks):
            (root / str(number)).write_bytes(block)
        replica = a.replica()
        await replica.survey.now()
        villain = await made.dials(VILLAIN, a)
        await villain.greet()
        await villain.deaf()
        await villain.say(AskFiles(1, bytes(FOLDER), [Lab.content(block) for block in blocks]))
        await a.until(lambda: replica.provided_bytes > 0)
        a.engine.membership.revoke(FOLDER, VILLAIN.device)
        await a.until(lambda: not replica.links)
        villain.listen()
        await villain.hear(Detach)
        await villain.say(Ping(9))
        while (await villain.hear(Pong)).number != 9:
            pass
        got = [m for m in villain.heard if isinstance(m, Files)]
        assert not any(answer.last for answer in got)
        assert sum(len(answer.files) for answer in got) < len(blocks)
        await villain.leave()


# ---------------------------------------------------------------------- names

WILD = "\x1b[2J\x07\u202eevil\r\nERROR \x9b31m"


def tame(shown: str) -> bool:
    """Say whether a terminal only shows this, line by line."""
    return all(line.isprintable() for line in shown.split("\n")) and "\x1b" not in shown


async def test_t34_names_of_peers_and_files_do_nothing_to_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Escapes, bidi overrides and line breaks in a device's name, in file names and in a
    goodbye are shown as text, in `status`, in `devices` and in the log."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        with caplog.at_level(logging.DEBUG):
            villain = await made.dials(VILLAIN, a)
            await villain.say(Hello(WILD, os.urandom(16), WILD))
            await villain.attach()
            wild = os.fsencode(WILD)
            await villain.tell(
                {
                    wild: villain.link(b"x"),
                    b"big" + wild: villain.file(b"x", size=2**40),
                }
            )
            await a.until(lambda: (root / WILD).is_symlink())
            (root / "mine").write_text("x")
            peer = a.engine.peers[VILLAIN.device]
            await a.until(lambda: peer.name == WILD)
            status = await a.engine.status()
            await villain.say(page(bytes(FOLDER), {b"../" + wild: villain.link(b"x")}))
            await villain.end()
        shown = text.status(api.status(status))
        assert "evil" in shown
        assert tame(shown)
        formatter = logs._Escaping("%(levelname)s %(message)s")
        lines = [formatter.format(record) for record in caplog.records]
        assert any("evil" in line for line in lines)
        assert all(tame(line) for line in lines)
        await still_syncing(a, b, root)
