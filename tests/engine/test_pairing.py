"""Pairing between whole engines, over real TCP: what a code opens, and what a guess costs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2psync.engine import offering, pairing
from p2psync.engine.events import Burned, CodeReady, Event, Finished, Offer, Paired
from p2psync.errors import ChannelClosedError, ExitCode, UserError
from p2psync.net.pairwire import PairingLink, dial_pairing
from p2psync.protocol.machine import Failed
from p2psync.protocol.pairing import (
    Offer as Offered,
)
from p2psync.protocol.pairing import (
    PairingAccepter,
    PairingSharer,
    Refused,
    WrongCode,
)
from p2psync.protocol.words import parse
from tests.support.engines import HERE, PATIENCE_S, Machine, Town, town
from tests.support.protocol import device

MALLORY = device("mallory")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strangers are not slowed down: for tests about something else."""
    monkeypatch.setattr(offering, "GUESS_PAUSE_S", 0.0)
    monkeypatch.setattr(offering, "START_PAUSE_S", 0.0)


class Sharing:
    """A running `share`, with all it said."""

    def __init__(self, machine: Machine, root: Path) -> None:
        self.machine = machine
        self.events: list[Event] = []
        self.task = asyncio.create_task(self._run(root))

    async def _run(self, root: Path) -> None:
        stream = self.machine.engine.share(str(root).encode(), None)
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                self.events.append(event)
                self.machine.engine.changed.ring()

    async def code(self, number: int = 0) -> str:
        """Wait for a code to be put up, the first if no number is given."""
        await self.machine.until(lambda: len(self.codes) > number or self.task.done())
        return self.codes[number]

    @property
    def codes(self) -> list[str]:
        """All codes so far."""
        return [event.code for event in self.events if isinstance(event, CodeReady)]

    async def failed(self) -> UserError:
        """Wait until it has ended with an error, and return that."""
        with pytest.raises(UserError) as caught:
            async with asyncio.timeout(PATIENCE_S):
                await self.task
        return caught.value

    async def stop(self) -> None:
        """Ctrl-C."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@contextlib.asynccontextmanager
async def sharing(machine: Machine, root: Path) -> AsyncIterator[Sharing]:
    """Share a directory until the context ends."""
    made = Sharing(machine, root)
    try:
        yield made
    finally:
        await made.stop()


async def accept(
    machine: Machine, code: str, path: Path | None = None, *, agree: bool = True
) -> list[Event]:
    """Accept a code to the end; return all that was said."""

    async def confirm(offer: Offer) -> bool:
        return agree

    place = None if path is None else str(path).encode()
    stream = machine.engine.accept(code, place, str(machine.path).encode(), 1.0, confirm)
    async with contextlib.aclosing(stream) as events:
        return [event async for event in events]


def wrong(code: str, number: int = 0) -> str:
    """Return a code of the same slot with other words."""
    others = ("zebra", "river", "stone", "apple")
    slot, *words = code.split("-")
    return "-".join([slot, *words[:2], next(w for w in others[number % 3 :] if w != words[2])])


class Guesser:
    """Somebody who answers a code without an engine, message by message."""

    def __init__(self, made: Town, code: str) -> None:
        self.code = parse(code)
        self.machine = PairingAccepter(
            MALLORY,
            self.code,
            "mallory",
            bytes(16),
            secrets.token_bytes(32),
            deadline=asyncio.get_running_loop().time() + PATIENCE_S,
        )
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.link: PairingLink
        self._wire = made.wire

    async def dial(self) -> None:
        """Open a link."""
        ports = self._wire.offers[self.code.slot]
        self.link = await dial_pairing(HERE, ports[0], PATIENCE_S)

    async def step(self) -> None:
        """Send what is to be sent and take one answer."""
        for data in self.machine.data_to_send():
            self.sent.append(data)
            await self.link.send(data)
        self.received.append(await self.link.receive())
        self.machine.receive_data(self.received[-1], asyncio.get_running_loop().time())

    async def guess(self) -> object:
        """Go through to the end; return what it came to. The link stays open."""
        await self.dial()
        while not (events := self.machine.events()):
            await self.step()
        return events[0]


async def outcome(made: Town, code: str) -> object:
    """Guess, close the link, and return what it came to."""
    guesser = Guesser(made, code)
    try:
        return await guesser.guess()
    finally:
        await guesser.link.close()


def guesses_in(machine: Machine) -> list[int]:
    """Return the guesses counted on the disk, for each code that is open."""
    connection = sqlite3.connect(f"file:{machine.places.database}?mode=ro", uri=True)
    with contextlib.closing(connection):
        return [count for (count,) in connection.execute("SELECT guesses FROM codes")]


async def test_two_devices_become_peers_and_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A code, typed once: both say who the other is, and both folders are equal at the end."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        root = a.root("photos")
        (root / "one.txt").write_text("one")
        async with sharing(a, root) as shared:
            said = await accept(b, await shared.code())
            await shared.task
        offer = next(event for event in said if isinstance(event, Offer))
        assert (offer.device, offer.device_name, offer.folder_name) == (a.id, "a", "photos")
        assert Paired(a.id, "a") in said
        assert Paired(b.id, "b") in shared.events
        assert said[-1] == shared.events[-1] == Finished(ExitCode.DONE)
        assert (b.path / "photos" / "one.txt").read_text() == "one"


@pytest.mark.usefixtures("quick")
async def test_t06_a_wrong_code_is_refused_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The accepting side is told, the sharing side knows from where; nobody is a member."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            with pytest.raises(UserError) as refused:
                await accept(b, wrong(code))
            assert refused.value.exit_code == ExitCode.REFUSED
            assert guesses_in(a) == [1]
            assert "wrong pairing code came from 127.0.0.1" in caplog.text
            assert not a.engine.peers
            assert not b.engine.replicas
            said = await accept(b, code)
            assert said[-1] == Finished(ExitCode.DONE)


@pytest.mark.usefixtures("quick")
async def test_t06_a_guess_is_on_disk_before_it_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killing the agent at the right moment gives nobody a guess for free."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        (a, b) = made.machines
        counted: list[list[int]] = []
        compare = PairingSharer.verify_guess

        def verify_guess(machine: PairingSharer) -> None:
            counted.append(guesses_in(a))
            compare(machine)

        monkeypatch.setattr(PairingSharer, "verify_guess", verify_guess)
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            for attempt in (wrong(code), wrong(code, 1)):
                assert isinstance(await outcome(made, attempt), WrongCode)
            await accept(b, code)
        assert counted == [[1], [2], [3]]


async def test_t06_guesses_come_one_in_so_many_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many try at once: the pace is one after another."""
    monkeypatch.setattr(offering, "START_PAUSE_S", 0.0)
    monkeypatch.setattr(offering, "GUESS_PAUSE_S", 0.3)
    async with town(tmp_path, monkeypatch, "a") as made:
        (a,) = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            began = time.monotonic()
            outcomes = await asyncio.gather(*(outcome(made, wrong(code, n)) for n in range(3)))
            assert all(isinstance(each, WrongCode) for each in outcomes)
            assert time.monotonic() - began >= 0.6


@pytest.mark.usefixtures("quick")
async def test_t06_five_guesses_burn_a_code_and_three_codes_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five wrong guesses the code is void and another is up; after three codes
    `share` gives up with exit 5 and says from where they came. The right code of a burned
    one opens nothing."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            for number in range(pairing.CODES):
                code = await shared.code(number)
                for guess in range(offering.GUESSES):
                    came_to = await outcome(made, wrong(code, guess))
                    assert isinstance(came_to, WrongCode)
                with pytest.raises(UserError) as refused:
                    await accept(b, code)
                assert refused.value.exit_code == ExitCode.REFUSED
            error = await shared.failed()
        assert error.exit_code == ExitCode.REFUSED
        burned = [event for event in shared.events if isinstance(event, Burned)]
        assert burned == [Burned(("127.0.0.1",))] * 3
        assert len(set(shared.codes)) == 3
        assert not a.engine.peers


@pytest.mark.usefixtures("quick")
async def test_t06_what_breaks_before_message_3_costs_no_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent, garbled and half conversations, forty of them: none is counted, and the code
    still works."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            for number in range(40):
                guesser = Guesser(made, code)
                await guesser.dial()
                if number % 4 == 1:
                    await guesser.link.send(bytes(100))
                elif number % 4 == 2:
                    await guesser.step()
                elif number % 4 == 3:
                    await guesser.step()
                    await guesser.link.send(b"\x03short")
                await guesser.link.close()
            assert guesses_in(a) == [0]
            said = await accept(b, code)
            assert said[-1] == Finished(ExitCode.DONE)


@pytest.mark.usefixtures("quick")
async def test_a_code_works_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second, with the right code, finds nobody."""
    async with town(tmp_path, monkeypatch, "a", "b", "c") as made:
        a, b, c = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            await accept(b, code)
            await shared.task
            with pytest.raises(UserError) as refused:
                await accept(c, code)
        assert refused.value.exit_code == ExitCode.REFUSED
        assert set(a.engine.peers) == {b.id}


@pytest.mark.usefixtures("quick")
async def test_of_two_that_accept_at_once_one_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One joins, the other is told that the code is gone; it leaves no member behind."""
    async with town(tmp_path, monkeypatch, "a", "b", "c") as made:
        a, b, c = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            outcomes = await asyncio.gather(
                accept(b, code), accept(c, code), return_exceptions=True
            )
        lost = [outcome for outcome in outcomes if isinstance(outcome, UserError)]
        won = [outcome for outcome in outcomes if isinstance(outcome, list)]
        assert [error.exit_code for error in lost] == [ExitCode.REFUSED]
        assert [said[-1] for said in won] == [Finished(ExitCode.DONE)]
        assert len(a.engine.peers) == 1


@pytest.mark.usefixtures("quick")
async def test_a_code_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unused in its time, it ends `share` with exit 6; then it opens nothing."""
    monkeypatch.setattr(offering, "CODE_S", 0.3)
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            error = await shared.failed()
            assert error.exit_code == ExitCode.TIMEOUT
            with pytest.raises(UserError) as refused:
                await accept(b, code)
        assert refused.value.exit_code == ExitCode.REFUSED
        assert guesses_in(a) == []
        assert len(a.engine.replicas) == 1, "the folder stays ready"


async def test_ctrl_c_withdraws_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder stays; the code is nobody's any more."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
        assert made.wire.offers == {}
        assert guesses_in(a) == []
        with pytest.raises(UserError) as refused:
            await accept(b, code)
        assert refused.value.exit_code == ExitCode.REFUSED
        assert len(a.engine.replicas) == 1


@pytest.mark.usefixtures("quick")
async def test_t05_an_identical_message_3_gets_the_identical_message_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Message 4 was lost: over another link the same messages get the same answers, also
    when forty strangers came in between; and it counts as no second guess."""
    async with town(tmp_path, monkeypatch, "a") as made:
        (a,) = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            first = Guesser(made, code)
            assert isinstance(await first.guess(), Offered)
            await first.link.close()
            for _ in range(40):
                stranger = Guesser(made, code)
                await stranger.dial()
                await stranger.step()
                await stranger.link.close()
            again = Guesser(made, code)
            await again.dial()
            answers = []
            for message in first.sent:
                await again.link.send(message)
                answers.append(await again.link.receive())
            await again.link.close()
            assert answers == first.received
            assert guesses_in(a) == [1]


@pytest.mark.usefixtures("quick")
async def test_t06_after_somebody_joined_no_guess_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A used code answers "gone", to right and wrong words alike."""
    async with town(tmp_path, monkeypatch, "a") as made:
        (a,) = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            assert isinstance(await outcome(made, code), Offered)
            for attempt in (code, wrong(code)):
                came_to = await outcome(made, attempt)
                assert isinstance(came_to, Refused | Failed)
            assert guesses_in(a) == [1]


@pytest.mark.usefixtures("quick")
async def test_declining_undoes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The person says no: nothing is made there, and the sharing side takes the member back."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            with pytest.raises(UserError, match="Declined"):
                await accept(b, await shared.code(), agree=False)
            error = await shared.failed()
        assert error.exit_code == ExitCode.REFUSED
        assert not a.engine.peers
        assert not b.engine.replicas
        assert not (b.path / "f").exists()


async def test_hanging_up_at_the_preview_declines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C instead of an answer leaves no member behind that never comes."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        asked = asyncio.Event()

        async def confirm(offer: Offer) -> bool:
            asked.set()
            return await asyncio.get_running_loop().create_future()

        async def accept_and_hesitate(code: str) -> None:
            stream = b.engine.accept(code, None, str(b.path).encode(), 1.0, confirm)
            async with contextlib.aclosing(stream) as events:
                async for _ in events:
                    pass

        async with sharing(a, a.root("f")) as shared:
            accepting = asyncio.create_task(accept_and_hesitate(await shared.code()))
            async with asyncio.timeout(PATIENCE_S):
                await asked.wait()
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            error = await shared.failed()

        assert error.exit_code == ExitCode.REFUSED
        assert not a.engine.peers
        assert not b.engine.replicas


async def test_the_code_of_a_folder_that_was_left_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody joins a folder that is not synced here any more."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        root = a.root("f")
        async with sharing(a, root) as shared:
            code = await shared.code()
            await a.engine.leave(str(root).encode(), purge=False)
            with pytest.raises(UserError) as caught:
                await accept(b, code)

        assert caught.value.exit_code in (ExitCode.REFUSED, ExitCode.UNREACHABLE)
        assert not a.engine.peers
        assert not b.engine.replicas


TYPED = {
    "a word not in the list": ("zebra-apple-river-qqqqq", ExitCode.USAGE),
    "three words": ("zebra-apple-river", ExitCode.USAGE),
    "nothing": ("", ExitCode.USAGE),
    "a code of nobody": ("zebra-apple-river-stone", ExitCode.REFUSED),
}


@pytest.mark.parametrize(("code", "exit_code"), TYPED.values(), ids=TYPED.keys())
async def test_what_is_no_code_or_nobodys_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: ExitCode
) -> None:
    """With a sentence, the right exit code, and nothing made."""
    async with town(tmp_path, monkeypatch, "b") as made:
        (b,) = made.machines
        with pytest.raises(UserError) as refused:
            await accept(b, code)
        assert refused.value.exit_code == exit_code
        assert not b.engine.replicas


async def test_two_folders_of_one_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepting under the same home joins two folders over memory; nobody else is involved."""
    async with town(tmp_path, monkeypatch, "a") as made:
        (a,) = made.machines
        root = a.root("f")
        (root / "one").write_text("one")
        async with sharing(a, root) as shared:
            said = await accept(a, await shared.code(), a.path / "copy")
            await shared.task
        assert said[-1] == shared.events[-1] == Finished(ExitCode.DONE)
        assert (a.path / "copy" / "one").read_text() == "one"
        assert not a.engine.peers


async def test_a_second_code_for_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sharing again brings a third device in; all three know each other."""
    async with town(tmp_path, monkeypatch, "a", "b", "c") as made:
        a, b, c = made.machines
        root = a.root("f")
        for joining in (b, c):
            async with sharing(a, root) as shared:
                await accept(joining, await shared.code())
                await shared.task
        await b.meets(a, c)
        assert len(a.engine.replicas) == 1


async def test_t10_a_stranger_that_says_nothing_keeps_nobody_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links that are opened and left alone take few places; the code works meanwhile."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        async with sharing(a, a.root("f")) as shared:
            code = await shared.code()
            idle = []
            for _ in range(3):
                guesser = Guesser(made, code)
                await guesser.dial()
                idle.append(guesser.link)
            said = await accept(b, code)
            assert said[-1] == Finished(ExitCode.DONE)
            for link in idle:
                with contextlib.suppress(ChannelClosedError):
                    await link.close()
