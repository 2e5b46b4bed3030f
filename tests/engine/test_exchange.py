"""The exchange of entries between real indexes, message by message, without a clock."""

from __future__ import annotations

import itertools
import shutil
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3

from p2psync.core.draft import Draft
from p2psync.core.entry import Entry, Kind
from p2psync.core.index import Changes
from p2psync.core.observed import Observed
from p2psync.core.reconcile import encode
from p2psync.core.vector import digest
from p2psync.engine.exchange import Exchange
from p2psync.errors import RemoteProtocolError
from p2psync.protocol import codec, limits
from p2psync.protocol.messages import (
    Attach,
    Entries,
    Item,
    Knowledge,
    Mark,
    Message,
    Recognised,
)
from p2psync.store import entries
from p2psync.store.index import Index
from tests.support.hostile import link_value

FOLDER = b"f" * 16
_numbers = itertools.count(1_000)


class Side:
    """One replica's index, and its half of the sessions it takes part in."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self.key = name.encode().ljust(32, b"-")
        self.path = path / f"{name}.db"
        self.settled = True
        self.start()

    def start(self) -> None:
        """Open the index: a new start."""
        self.index = Index.open(self.path, start=next(_numbers))

    def draft(self) -> Draft:
        """Return a draft with a spare author of its own."""
        return Draft(self.index, spare_author=next(_numbers))

    def sees(self, path: bytes, text: str | None) -> None:
        """A look at the disk: a file with this text, or nothing."""
        draft = self.draft()
        seen = None
        if text is not None:
            content = blake3(text.encode()).digest()
            seen = Observed(Kind.FILE, content, len(text), b"", False, 0, None)
        draft.scan({path: seen})
        self.index.write(draft.finish())

    def collects(self, *members: Side) -> None:
        """Let go of the tombstones these members have taken in."""
        draft = self.draft()
        known = [self.index.peers_known().get(member.key, {}) for member in members]
        draft.collect(known, self.index.tombstones(limit=100))
        self.index.write(draft.finish())

    def exchange(self, peer: Side) -> Exchange:
        """Return this side's half of a session."""
        return self.exchange_with(peer.key)

    def exchange_with(self, key: bytes) -> Exchange:
        """Return this side's half of a session with whoever has this key."""
        return Exchange(
            self.index,
            FOLDER,
            key,
            self.draft,
            self.index.needed_totals,
            lambda: False,
            lambda: self.settled,
        )

    @property
    def entries(self) -> dict[bytes, Entry]:
        """Return everything it knows."""
        return self.index.entries(self.index.paths())

    @property
    def living(self) -> set[bytes]:
        """Return the paths with live values."""
        return set(self.index.live_below(b""))


class Talk:
    """A session between two sides; every message is handed over by `step`."""

    def __init__(self, one: Side, other: Side, members: tuple[Side, ...] = ()) -> None:
        self.sides = (one, other)
        self.halves = (one.exchange(other), other.exchange(one))
        self.queues: tuple[deque[Message], deque[Message]] = (deque(), deque())
        self.said: list[tuple[str, Message]] = []
        self.members = [side.key for side in members]
        for half, queue in zip(self.halves, self.queues, strict=True):
            queue.append(half.attach())

    def step(self, who: int) -> Message | None:
        """Let one side say its next message and the other take it; None: it is silent."""
        queue = self.queues[who]
        half, more = self.halves[who], True
        while not queue and more:
            queue.extend(half.next_messages())
            told_before_durable = bool(queue) and self.sides[who].index.unsettled
            assert not told_before_durable, "durable-before-told"
            more = half.more
        if not queue:
            return None
        message = codec.decode(codec.encode(queue.popleft()))  # it fits a frame
        self.said.append((self.sides[who].name, message))
        self._take(1 - who, message)
        return message

    def _take(self, who: int, message: Message) -> None:
        half, queue = self.halves[who], self.queues[who]
        match message:
            case Attach():
                queue.append(half.take_attach(message))
            case Recognised():
                queue.extend(half.take_recognised(message))
            case Knowledge():
                half.take_knowledge(message)
            case Entries():
                half.take_entries(message)
            case Mark():
                half.take_mark(message, self.members)

    def until_silent(self) -> Counter[str]:
        """Talk until both are silent; return how many messages of each kind each side said."""
        before = len(self.said)
        for _ in range(1_000):
            if not [who for who in (0, 1) if self.step(who) is not None]:
                break
        else:
            raise AssertionError("they never fall silent")
        return Counter(
            f"{name} {type(message).__name__}" for name, message in self.said[before:]
        )

    def told(self, name: str) -> list[bytes]:
        """Return the paths a side told, in order."""
        return [
            item.path
            for who, message in self.said
            if who == name and isinstance(message, Entries)
            for item in message.items
        ]


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[tuple[Side, Side, Side]]:
    """Three replicas, knowing nothing."""
    made = (Side(tmp_path, "a"), Side(tmp_path, "b"), Side(tmp_path, "c"))
    yield made
    for side in made:
        side.index.close()


Sides = tuple[Side, Side, Side]


def equal(*sides: Side) -> bool:
    """Say whether all know the same."""
    return all(
        side.entries == sides[0].entries
        and side.index.facts().known == sides[0].index.facts().known
        and side.index.digest() == sides[0].index.digest()
        for side in sides
    )


def test_convergence_after_one_session(sides: Sides) -> None:
    """Both had something: both have everything, know the same, and fall silent."""
    a, b, _ = sides
    for number in range(5):
        a.sees(b"a%d" % number, "from a")
        b.sees(b"b%d" % number, "from b")
    talk = Talk(a, b)
    talk.until_silent()
    assert equal(a, b)
    assert len(a.entries) == 10


def test_silence_once_both_know_the_same(sides: Sides) -> None:
    """Then no message is made; a new session exchanges greetings and one mark each, at most
    one more when the marks themselves were news."""
    a, b, _ = sides
    a.sees(b"x", "x")
    Talk(a, b).until_silent()
    talk = Talk(a, b)
    said = talk.until_silent()
    assert "a Entries" not in said
    assert "b Entries" not in said
    assert "a Knowledge" not in said
    assert said["a Mark"] <= 2
    assert said["b Mark"] <= 2
    assert not talk.until_silent()


def test_a_later_change_is_all_that_travels(sides: Sides) -> None:
    """In a session that is quiet, one change is one entry and a mark, and its echo nothing."""
    a, b, _ = sides
    for number in range(50):
        a.sees(b"%d" % number, "x")
    talk = Talk(a, b)
    talk.until_silent()
    talk.said.clear()
    a.sees(b"7", "changed")
    talk.until_silent()
    assert talk.told("a") == [b"7"]
    assert talk.told("b") == []
    assert equal(a, b)


def test_knowledge_travels_whole_only_when_its_digest_says_nothing(sides: Sides) -> None:
    """Two that never met need it; two that meet again do not."""
    a, b, _ = sides
    a.sees(b"x", "x")
    first = Talk(a, b).until_silent()
    second = Talk(a, b).until_silent()
    assert first["a Knowledge"] == 1
    assert first["b Knowledge"] == 0, "knowing nothing needs no words"
    assert second["a Knowledge"] == second["b Knowledge"] == 0


def test_a_cut_session_keeps_the_cursor_and_claims_nothing(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that arrived are not sent again; without the mark nothing is known."""
    monkeypatch.setattr(limits, "PAGE_ENTRIES", 10)
    a, b, _ = sides
    for number in range(35):
        a.sees(b"%02d" % number, "x")
    talk = Talk(a, b)
    while len(talk.told("a")) < 20:
        talk.step(0)
        talk.step(1)

    assert len(b.entries) == 20
    assert b.index.facts().known == {}
    assert b.index.cursor(a.key) == (a.index.start, 20)

    again = Talk(a, b)
    again.until_silent()
    assert again.told("a") == [b"%02d" % number for number in range(20, 35)]
    assert equal(a, b)


def test_a_page_breaks_off_at_a_breach_and_nothing_of_it_stays(sides: Sides) -> None:
    """One bad entry: the page is refused whole, the cursor stays where it was."""
    a, b, _ = sides
    a.sees(b"x", "x")
    talk = Talk(a, b)
    talk.until_silent()
    page = next(message for _, message in talk.said if isinstance(message, Entries))
    ahead = limits.SEQ_AHEAD + 10
    bad = page.items[0].__class__(
        9,
        b"y",
        page.items[0].entry.__class__(
            b"\x92\x81\x01" + b"\xcf" + ahead.to_bytes(8, "big") + b"\x80"
        ),
    )
    before = (b.index.cursor(a.key), b.entries)
    with pytest.raises(RemoteProtocolError, match="far beyond"):
        talk.halves[1].take_entries(Entries(FOLDER, a.index.start, False, [*page.items, bad]))
    assert (b.index.cursor(a.key), b.entries) == before


def test_what_the_peer_knows_is_left_out(sides: Sides) -> None:
    """Two that learnt the same from a third tell each other nothing."""
    a, b, c = sides
    for number in range(20):
        a.sees(b"%d" % number, "x")
    Talk(a, b).until_silent()
    Talk(a, c).until_silent()
    talk = Talk(b, c)
    talk.until_silent()
    assert talk.told("b") == talk.told("c") == []
    assert equal(a, b, c)


def test_o01_many_entries_the_peer_knows_do_not_stop_the_mark(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Passing over them takes several looks at the index; at the end there is the mark."""
    monkeypatch.setattr(entries, "PAGE_LOOK", 2)
    monkeypatch.setattr(entries, "PAGE_LOOKS", 2)
    a, b, c = sides
    for number in range(30):
        a.sees(b"%d" % number, "x")
    Talk(a, b).until_silent()
    Talk(a, c).until_silent()
    talk = Talk(b, c)
    said = talk.until_silent()
    assert talk.told("b") == talk.told("c") == []
    assert said["b Mark"] >= 1
    assert said["c Mark"] >= 1


def test_p02_changes_are_relayed(sides: Sides) -> None:
    """B passes on what it has from A, though the two never meet; deletes too."""
    a, b, c = sides
    a.sees(b"x", "x")
    Talk(a, b).until_silent()
    Talk(b, c).until_silent()
    assert c.living == {b"x"}
    a.sees(b"x", None)
    Talk(a, b).until_silent()
    Talk(b, c).until_silent()
    assert c.living == set()
    assert equal(a, b, c)


def test_acknowledgements_are_passed_on_for_members_only(sides: Sides) -> None:
    """A learns through B how far C is; of somebody who is no member it keeps nothing."""
    a, b, c = sides
    a.sees(b"x", "x")
    Talk(a, b).until_silent()
    Talk(b, c).until_silent()
    Talk(b, a, members=()).until_silent()
    assert c.key not in a.index.peers_known()
    b.sees(b"y", "y")
    Talk(b, c).until_silent()
    Talk(b, a, members=(c,)).until_silent()
    assert a.index.peers_known()[c.key] == c.index.facts().known


def test_t23_acknowledgements_without_number_go_in_several_marks(sides: Sides) -> None:
    """Somebody made up a thousand members and what they know: between honest replicas every
    mark still fits a frame, and in the end all is told."""
    a, b, c = sides
    a.sees(b"x", "x")
    vast = dict.fromkeys(range(1, limits.AUTHORS), 2**62)
    made_up = [b"%032d" % number for number in range(600)]
    for number, member in enumerate(made_up):
        a.index.join_peer(member, vast if number < 5 else {number + 1: 1})
    talk = Talk(a, b, members=(c,))
    talk.members += made_up
    said = talk.until_silent()
    assert 3 <= said["a Mark"] <= 6
    assert len(b.index.peers_known()) > 600
    assert equal(a, b)


def test_l7_taking_a_page_twice_changes_nothing(sides: Sides) -> None:
    """A message that is delivered again is no news (T05)."""
    a, b, _ = sides
    a.sees(b"x", "x")
    talk = Talk(a, b)
    talk.until_silent()
    page = next(message for _, message in talk.said if isinstance(message, Entries))
    changes: Changes = talk.halves[1].take_entries(page)
    assert not changes.entries
    assert equal(a, b)


def test_p05_what_was_collected_is_not_resurrected(sides: Sides) -> None:
    """C, long away, still has what A and B deleted and forgot: it gets a full listing, and
    lets go of it; what C made meanwhile stays."""
    a, b, c = sides
    for path in (b"old", b"kept"):
        a.sees(path, "x")
    Talk(a, b).until_silent()
    Talk(a, c).until_silent()
    a.sees(b"old", None)
    Talk(a, b).until_silent()
    Talk(a, b).until_silent()
    for side, other in ((a, b), (b, a)):
        side.collects(other)
        assert b"old" not in side.entries
    c.sees(b"new", "from c")

    talk = Talk(c, a)
    talk.until_silent()
    Talk(a, b).until_silent()

    pages = [m for who, m in talk.said if who == "a" and isinstance(m, Entries)]
    assert all(page.full for page in pages)
    assert a.living == b.living == c.living == {b"kept", b"new"}


def test_collecting_in_the_middle_of_a_batch_starts_a_full_listing(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that left things out ends without a claim when its sender forgets meanwhile."""
    monkeypatch.setattr(limits, "PAGE_ENTRIES", 5)
    a, b, c = sides
    a.sees(b"old", "x")
    Talk(a, b).until_silent()
    Talk(a, c).until_silent()
    for number in range(12):
        a.sees(b"%02d" % number, "x")
    a.sees(b"old", None)
    Talk(a, b).until_silent()
    Talk(a, b).until_silent()
    talk = Talk(a, c)
    while not talk.told("a"):
        talk.step(0)
        talk.step(1)
    a.collects(b)
    talk.until_silent()
    marks = [m for who, m in talk.said if who == "a" and isinstance(m, Mark)]
    assert marks[0].full
    assert c.living == a.living


def test_m02_a_rolled_back_index_hears_and_tells_everything_again(
    sides: Sides, tmp_path: Path
) -> None:
    """The database of yesterday comes back: its peers' cursors are cut down to what it had,
    what it lost comes back from them, and what it makes now is new to everybody."""
    a, b, _ = sides
    a.sees(b"one", "x")
    Talk(a, b).until_silent()
    a.index.close()
    shutil.copy(a.path, tmp_path / "backup")
    a.start()
    a.sees(b"two", "x")
    a.sees(b"three", "x")
    Talk(a, b).until_silent()
    a.index.close()
    for name in tmp_path.glob("a.db*"):
        name.unlink()
    shutil.copy(tmp_path / "backup", a.path)
    a.start()
    a.sees(b"four", "x")
    a.sees(b"five", "x")

    Talk(a, b).until_silent()

    assert b.living == a.living == {b"one", b"two", b"three", b"four", b"five"}
    assert equal(a, b)


def test_durable_a_peer_that_knows_more_of_us_than_we_made_gives_us_a_new_author(
    sides: Sides,
) -> None:
    """Our state was rolled back while we ran: no dot is ever used twice; contents and
    winners stay, and nothing is transferred."""
    a, b, _ = sides
    a.sees(b"x", "x")
    Talk(a, b).until_silent()
    author, seq = a.index.facts().author, a.index.facts().seq
    talk = Talk(a, b)
    talk.until_silent()
    talk.halves[0].take_mark(
        Mark(FOLDER, b.index.start, 9, False, {author: seq + 3}, {}, {}, 0, 0), []
    )
    a.sees(b"y", "y")
    facts = a.index.facts()
    assert facts.author != author
    assert all(dot[0] != author for dot in a.entries[b"x"].live)
    value = next(iter(a.entries[b"x"].live.values()))
    assert value.content == blake3(b"x").digest()


def test_a_difference_is_settled_by_full_listings(sides: Sides) -> None:
    """Two that know the same and hold different things (a bug, a bad disk) list everything
    to each other and are equal again."""
    a, b, _ = sides
    for path in (b"x", b"y"):
        a.sees(path, "x")
    talk = Talk(a, b)
    talk.until_silent()
    b.index.write(Changes(facts=b.index.facts(), entries={b"x": None}))
    assert a.index.digest() != b.index.digest()
    for half in talk.halves:
        half.relist()
    talk.until_silent()
    assert a.living == b.living


def poison(side: Side, values: int, link_bytes: int, authors: int) -> None:
    """Let a side take, in pages that are fine by themselves, an entry that no page may hold."""
    half = side.exchange_with(b"v" * 32)
    half.attach()
    half.take_attach(Attach(FOLDER, 0, 0, digest({}), digest({})))
    for number in range(4):
        live = {}
        for seq in range(1, values // 4 + 1):
            dot = (9_000 + number, seq)
            target = b"%d-%d" % dot
            live[dot] = link_value(target + b"x" * (link_bytes - len(target)), dot)
        first = 10**6 * (number + 1)
        ctx = dict.fromkeys(range(first, first + authors // 4), 1)
        ctx[9_000 + number] = values
        body = msgspec.Raw(encode(Entry(ctx, live)))
        half.take_entries(Entries(FOLDER, 1, False, [Item(number + 1, b"poisoned", body)]))


POISONS = {
    "too many values": (1_200, 10, 4),
    "too many bytes": (800, 4_000, 4),
    "too many authors": (4, 10, 40_000),
}


@pytest.mark.parametrize("poisoned", POISONS.values(), ids=POISONS.keys())
def test_t23_isolation_an_entry_too_large_to_tell_stops_no_other(
    sides: Sides, caplog: pytest.LogCaptureFixture, poisoned: tuple[int, int, int]
) -> None:
    """Hostile members made one path's entry larger than a message: honest replicas leave it
    out, say so in the log, and tell each other everything else."""
    a, b, _ = sides
    a.sees(b"before", "x")
    poison(a, *poisoned)
    a.sees(b"later", "x")
    talk = Talk(a, b)
    said = talk.until_silent()
    assert b.living == {b"before", b"later"}
    assert said["a Mark"] >= 1
    assert "poisoned is told to nobody" in caplog.text
    assert talk.halves[1].told.known == a.index.facts().known


def strange_page(side: Side, items: dict[bytes, Entry]) -> None:
    """Let a side take a page of somebody it never met."""
    half = side.exchange_with(b"v" * 32)
    half.attach()
    half.take_attach(Attach(FOLDER, 0, 0, digest({}), digest({})))
    told = [Item(n, p, msgspec.Raw(encode(e))) for n, (p, e) in enumerate(items.items(), 1)]
    message = codec.decode(codec.encode(Entries(FOLDER, 1, False, told)))
    assert isinstance(message, Entries)
    half.take_entries(message)


def test_t23_a_page_of_bottomless_paths_is_refused_at_once(sides: Sides) -> None:
    """Each path may imply a thousand directories: not a page full of them."""
    a, _, _ = sides
    items = {}
    for number in range(400):
        dot = (9_000, number + 1)
        path = b"%d/" % number + b"a/" * 990 + b"f"
        items[path] = Entry({9_000: number + 1}, {dot: link_value(b"x", dot)})
    began = time.process_time()
    with pytest.raises(RemoteProtocolError, match="too deep"):
        strange_page(a, items)
    assert time.process_time() - began < 2.0
    assert a.entries == {}


def test_t23_a_thousand_contents_of_one_path_cost_no_minute(sides: Sides) -> None:
    """The names of a thousand conflict copies are handed out in one go."""
    a, _, _ = sides
    live = {(9_000, n): link_value(b"%d" % n, (9_000, n)) for n in range(1, 1_001)}
    began = time.process_time()
    strange_page(a, {b"p": Entry({9_000: 1_000}, live)})
    assert time.process_time() - began < 3.0
    assert len(a.index.needed(limit=2_000)) == 1_000


def test_needs_are_told_and_taken(sides: Sides) -> None:
    """A mark says what its sender still lacks, so that the other knows when it is done."""
    a, b, _ = sides
    a.sees(b"x", "12345")
    talk = Talk(a, b)
    talk.until_silent()
    told = talk.halves[0].told
    assert (told.need_files, told.need_bytes, told.marked) == (1, 5, True)


def test_a_cursor_of_another_life_counts_for_nothing(sides: Sides) -> None:
    """The index was lost: whatever arrival the peer names, all is told from the start."""
    a, b, _ = sides
    a.sees(b"x", "x")
    half = a.exchange(b)
    half.attach()
    half.take_attach(Attach(FOLDER, 4_711, 10**9, digest({}), digest({})))
    half.take_recognised(Recognised(FOLDER, True))
    messages = half.next_messages()
    assert [type(message) for message in messages] == [Entries, Mark]


def test_no_batch_ends_in_the_middle_of_a_move(tmp_path: Path) -> None:
    """While a scan has new names told and old ones not, entries go and no mark does."""
    a, b = Side(tmp_path, "a"), Side(tmp_path, "b")
    talk = Talk(a, b)
    talk.until_silent()
    a.settled = False
    a.sees(b"new", "text")

    said = talk.until_silent()
    assert (said["a Entries"], said["a Mark"]) == (1, 0)
    a.settled = True
    assert talk.until_silent()["a Mark"] == 1
