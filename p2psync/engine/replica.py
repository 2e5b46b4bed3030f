"""The owner of one replica: its index, its root, and every task that works on them.

All work on the index and the disk happens in the replica's one worker thread; the tasks here
only decide what comes next:

- *serve* takes in what peers tell (bounded inbox) and answers what they ask,
- *scan* looks where the watcher, a timer or a doubt points,
- *fetch* gets and applies what is needed,
- *tend* does what has time: collecting tombstones, comparing digests, pruning history,
  looking whether a lost root is back.

A root that is not there, has another marker, or whose ignore rules cannot be read *holds* the
replica: nothing is scanned or applied (an unmounted disk deletes nothing), entries still flow.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from p2psync.core import paths, vector
from p2psync.core.draft import Draft
from p2psync.core.ids import FolderId
from p2psync.core.ignore import NOTHING, Rules
from p2psync.core.index import Want
from p2psync.core.problem import Problem
from p2psync.engine.apply import Applied, Applier
from p2psync.engine.conversation import Conversation
from p2psync.engine.events import FolderStatus, State
from p2psync.engine.exchange import Exchange
from p2psync.engine.fetch import Fetcher
from p2psync.engine.link import Link
from p2psync.engine.provide import Provider
from p2psync.engine.scanning import Found, Scanner, forget_rows, told_something
from p2psync.engine.signal import Bell
from p2psync.engine.worker import Worker
from p2psync.errors import ChannelClosedError, RemoteProtocolError, RootTrouble
from p2psync.fs.partial import Partial
from p2psync.fs.root import Root
from p2psync.fs.scan import load_rules
from p2psync.fs.watch import Watcher
from p2psync.protocol import limits
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Chunks,
    Digest,
    Entries,
    Files,
    Knowledge,
    Manifest,
    Mark,
    Message,
    Recognised,
)
from p2psync.store.home import FolderRecord
from p2psync.store.index import CorruptIndexError, Index

logger = logging.getLogger(__name__)

IGNORE_FILE = b".p2psyncignore"
INBOX = 64
TEND_S = 2.0
QUIET_S = 60.0
DIGEST_S = 600.0
SCAN_MIN_S, SCAN_MAX_S, SCAN_COST = 60.0, 86_400.0, 500.0
HISTORY_DAYS = 30
COLLECT_AT_ONCE = 1_000


class Replica:
    """One folder at one root on this device.

    Args:
        record: where it is and what it is called.
        directory: where the index databases live.
        members: returns the peer keys of all *other* members, this device's twins included.
    """

    def __init__(
        self, record: FolderRecord, directory: Path, members: Callable[[], Collection[bytes]]
    ) -> None:
        self.record = record
        self.folder: bytes = bytes(record.folder)
        self.links: list[Link] = []
        self.changed = Bell()
        self.held = "the agent has just started"
        self.problems: dict[bytes, Problem] = {}
        self.scanning = True
        self.provided_bytes = 0
        self.messages = 0
        self.counted = (0, 0, False)  # files, bytes, and whether all have been counted
        self.worker = Worker(f"replica-{record.name}")
        self.fetcher = Fetcher(self)
        self.index: Index
        self.root: Root
        self.applier: Applier
        self.rules: Rules = NOTHING
        self._database = directory / f"{record.replica.hex()}.db"
        self._members = members
        self._provider: Provider | None = None
        self._scanner: Scanner
        self._inbox: asyncio.Queue[tuple[Link, Message]] = asyncio.Queue(INBOX)
        self._opened = asyncio.Event()
        self._to_scan: set[bytes] = set()
        self._scan_all: list[asyncio.Future[None]] = []
        self._scan_wanted = asyncio.Event()
        self._scan_wanted_full = True
        self._next_full_scan = 0.0
        self._safe = False
        self._may_adopt = False
        self._quiet_since = time.monotonic()
        self._digest_at = 0.0
        self._group: asyncio.TaskGroup
        self._stopping = asyncio.Event()
        self._watcher_state = ""

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Own the replica until `stop`; returns when everything is closed."""
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, stop):
                task.cancel()
            (outcome, _) = await asyncio.gather(work, stop, return_exceptions=True)
            for link in list(self.links):
                self.detach(link)
            await self.worker(self._close)
            self.worker.close()
        if isinstance(outcome, Exception):
            raise outcome

    async def _work(self) -> None:
        await self.worker(self._open_index)
        await self._open_root()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._serve())
            group.create_task(self._scan())
            group.create_task(self.fetcher.run())
            group.create_task(self._watch())
            group.create_task(self._tend())
            self._opened.set()

    def stop(self) -> None:
        """Ask the replica to end; `run` returns soon after."""
        self._stopping.set()

    async def opened(self) -> None:
        """Wait until the index is open and what was needed at the last end is looked at."""
        await self._opened.wait()

    def _open_index(self) -> None:
        start = secrets.randbits(63) | 1
        try:
            self.index = Index.open(self._database, start=start)
        except CorruptIndexError as error:
            logger.error("%s; starting a new index in safe mode", error)
            self.index = Index.open(self._database, start=start)
        self._safe = self.index.get("safe") == b"1"
        if self.index.fresh and self._members():
            self._enter_safe_mode()

    def _close(self) -> None:
        with suppress(AttributeError):
            self.index.close()
        with suppress(AttributeError):
            self.root.close()

    async def _open_root(self) -> None:
        try:
            await self.worker(self._take_root)
            self._release()
        except RootTrouble as trouble:
            self._hold(str(trouble))

    def _take_root(self) -> None:
        """Open the root, see whether it is the one we knew, and look at what was needed."""
        record = self.record
        self.root = Root.open(record.root, record.replica, bytes(record.folder))
        known, now = self.index.get("root"), repr(self.root.identity).encode()
        if known is not None and known != now:
            logger.warning("the root is another one than before: missing files are fetched")
            forget_rows(self.index, self.draft(), list(self.index.rows_below(b"")))
            self._enter_safe_mode()
        self.index.put("root", now)
        for recovered in self.root.recover():
            logger.warning("kept in history after a crash: %s", recovered)
        self._load_rules()
        self.applier = Applier(self.index, self.root, self.draft)
        self._provider = Provider(self.index, self.root, self.worker)
        self._scanner = Scanner(self.index, self.root, self.draft)
        if not self._safe:
            needed = [path for path, _ in self.index.needed(limit=1_000_000)]
            for found in self._scanner.paths(needed):
                self._note(found)

    @property
    def may_apply(self) -> bool:
        """False while held, and in safe mode until what is here has been adopted."""
        return not self.held and not self._safe

    def _enter_safe_mode(self) -> None:
        """Nothing is scanned before a peer has told what there should be (design 4.9)."""
        self.index.put("safe", b"1")
        self._safe = True

    def _leave_safe_mode(self) -> None:
        self.index.put("safe", b"0")
        self._safe = False

    def _load_rules(self) -> None:
        """Read the ignore rules; raise RootTrouble when they cannot be read."""
        rules = load_rules(self.root)
        if isinstance(rules, Problem):
            raise RootTrouble("ignore rules", f".p2psyncignore {rules.reason}: {rules.detail}")
        changed = self.index.get("rules") not in (None, rules.digest)
        self.rules = rules
        if changed or self.index.get("rules") is None:
            self._rules_changed()
        self.index.put("rules", rules.digest)

    def _rules_changed(self) -> None:
        """What is ignored now loses its row without a claim; needs are chosen anew."""
        after = b""
        while batch := self.index.paths(after=after, limit=1_000):
            draft = self.draft()
            draft.load(batch)
            for path in batch:
                if self.rules.ignored(path):
                    draft.forget_row(path)
                draft.touch(path)
            self.index.write(draft.finish())
            after = batch[-1]

    def remove_index(self) -> None:
        """Remove the index of a replica that has ended; nothing of the folder is touched."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._database}{suffix}").unlink(missing_ok=True)

    # ------------------------------------------------------------------ holding

    def _hold(self, reason: str) -> None:
        if self.held != reason:
            logger.warning("%s is held: %s", paths.printable(self.record.root), reason)
        self.held = reason
        self.changed.ring()

    def _release(self) -> None:
        self.held = ""
        self.scan_soon(everything=True)
        self.fetcher.wake.set()
        self.changed.ring()

    # ------------------------------------------------------------------ small helpers

    def draft(self) -> Draft:
        """Return a draft over the index with this replica's rules and a spare author id."""
        return Draft(
            self.index, spare_author=secrets.randbits(63) | 1, ignored=self.rules.ignored
        )

    def need(self) -> tuple[int, int]:
        """Return what is lacking here, files and bytes; in the worker thread."""
        return self.index.needed_totals()

    def _wake_links(self) -> None:
        for link in self.links:
            link.wake.set()

    def _stirred(self) -> None:
        """The index changed: tell peers, look at the needs, tell those who watch."""
        self._quiet_since = time.monotonic()
        self._wake_links()
        self.fetcher.wake.set()
        self.changed.ring()

    # ------------------------------------------------------------------ applying

    async def apply(
        self,
        wants: Mapping[bytes, Want],
        data: Mapping[bytes, bytes],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply one batch in the worker thread."""
        try:
            return await self.worker(self.applier.apply, wants, data, large)
        except RootTrouble as trouble:
            self._hold(str(trouble))
            return Applied()

    def took(self, applied: Applied) -> None:
        """Note the outcome of a batch."""
        for problem in applied.problems:
            self.problems[problem.path] = problem
        for path in applied.done:
            self.problems.pop(path, None)
        if applied.rescan:
            self.scan_soon({paths.parent(path) for path in applied.rescan})
        if IGNORE_FILE in applied.done:
            self._scan_wanted_full = True
            self._scan_wanted.set()
        if applied.done:
            self._stirred()
        self.changed.ring()

    # ------------------------------------------------------------------ scanning

    def scan_soon(self, directories: Iterable[bytes] = (), *, everything: bool = False) -> None:
        """Ask for a scan of these directories, or of everything."""
        self._to_scan.update(directories)
        self._scan_wanted_full |= everything
        self._scan_wanted.set()

    async def scan_now(self) -> None:
        """Scan everything once, beginning after this call, and wait until it is done."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._scan_all.append(done)
        self._scan_wanted.set()
        await done

    async def _scan(self) -> None:
        while True:
            wait = max(0.0, self._next_full_scan - time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(wait if self._next_full_scan else None):
                    await self._scan_wanted.wait()
            self._scan_wanted.clear()
            waiters, self._scan_all = self._scan_all, []
            if self.held or (self._safe and not self._may_adopt):
                self._finish_waiters(waiters)
                continue
            due = 0 < self._next_full_scan <= time.monotonic()
            try:
                if waiters or due or self._scan_wanted_full or self._safe:
                    await self._full_scan()
                    if self._safe:
                        await self.worker(self._leave_safe_mode)
                        self.fetcher.wake.set()
                else:
                    directories, self._to_scan = self._to_scan, set()
                    await self._units(self._scanner.directories(directories, self.rules))
            except RootTrouble as trouble:
                self._hold(str(trouble))
            self._finish_waiters(waiters)
            self.scanning = False
            self.changed.ring()

    def _finish_waiters(self, waiters: list[asyncio.Future[None]]) -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _full_scan(self) -> None:
        self._scan_wanted_full = False
        self._to_scan.clear()
        self.scanning = self._next_full_scan == 0.0
        self.changed.ring()
        began = time.thread_time()
        await self.worker(self.root.check)
        await self.worker(self._load_rules)
        cost = await self._units(self._scanner.tree(b"", self.rules))
        cost += time.thread_time() - began
        pause = min(SCAN_MAX_S, max(SCAN_MIN_S, SCAN_COST * cost))
        self._next_full_scan = time.monotonic() + pause

    async def _units(self, scan: Iterable[Found]) -> float:
        """Run a scan unit by unit; return the worker's CPU seconds."""
        units = iter(scan)
        cost = 0.0

        def one() -> tuple[Found | None, float]:
            began = time.thread_time()
            found = next(units, None)
            self.counted = (*self.index.totals(), found is None)
            return found, time.thread_time() - began

        while True:
            found, spent = await self.worker(one)
            cost += spent
            if found is None:
                return cost
            self._note(found)
            if found.changed:
                self._stirred()

    def _note(self, found: Found) -> None:
        for path, problem in found.problems.items():
            if problem is None:
                self.problems.pop(path, None)
            else:
                self.problems[path] = problem
        if found.again:
            self._later(0.3, lambda: self.scan_soon(found.again))

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # before the loop runs (opening), the full scan follows
            asyncio.get_running_loop().call_later(delay_s, action)

    async def _watch(self) -> None:
        watcher = Watcher(self.record.root)
        async for hint in watcher.hints(self._stopping):
            self._watcher_state = watcher.state
            if hint.rules or hint.everything:
                self.scan_soon(everything=True)
            self.scan_soon(hint.paths, everything=hint.everything)

    # ------------------------------------------------------------------ peers

    @asynccontextmanager
    async def attached(self, conversation: Conversation) -> AsyncIterator[Link]:
        """Exchange with a peer for as long as the context lasts."""
        await self.opened()
        exchange = Exchange(self.index, self.folder, conversation.key, self.draft, self.need)
        link = Link(conversation, exchange, self.worker)
        sender = self._group.create_task(self._sender(link))
        self.links.append(link)
        self.changed.ring()
        try:
            yield link
        finally:
            self.detach(link)
            sender.cancel()

    def detach(self, link: Link) -> None:
        """The peer is gone, or no longer a member."""
        if link in self.links:
            self.links.remove(link)
        link.close()
        self.fetcher.wake.set()
        self.changed.ring()

    async def _sender(self, link: Link) -> None:
        with suppress(ChannelClosedError):
            await link.conversation.send(await self.worker(link.exchange.attach))
            await link.send_entries()

    async def receive(self, link: Link, message: Message) -> None:
        """Take one message of a peer about this folder; waits while the inbox is full."""
        self.messages += 1
        if isinstance(message, AskFiles | AskManifest | AskChunks):
            await self._asked(link, message)
        else:
            await self._inbox.put((link, message))

    async def _serve(self) -> None:
        while True:
            link, message = await self._inbox.get()
            if link not in self.links:
                continue
            try:
                await self._take(link, message)
            except RemoteProtocolError as error:
                link.conversation.fail(str(error))
            except ChannelClosedError:
                pass

    async def _take(self, link: Link, message: Message) -> None:
        exchange = link.exchange
        match message:
            case Attach():
                answer = await self.worker(exchange.take_attach, message)
                await link.conversation.send(answer)
                link.wake.set()
            case Recognised():
                for vectors in exchange.take_recognised(message):
                    await link.conversation.send(vectors)
                link.wake.set()
            case Knowledge():
                await self.worker(exchange.take_knowledge, message)
                link.wake.set()
            case Entries():
                changes = await self.worker(exchange.take_entries, message)
                if told_something(changes):
                    self._stirred()
            case Mark():
                await self._take_mark(link, message)
            case Digest():
                await self._compare(link, message)
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} is not for a folder")

    async def _take_mark(self, link: Link, message: Mark) -> None:
        before = link.exchange.told
        members = self._members()
        changes = await self.worker(link.exchange.take_mark, message, members)
        if self._safe and not self._may_adopt:
            self._may_adopt = True
            self.scan_soon(everything=True)
        if changes.entries or link.exchange.told.known != before.known:
            self._stirred()
        self._peer_moved(link)

    def _peer_moved(self, link: Link) -> None:
        """The peer may have got contents it lacked a moment ago."""
        link.gone.clear()
        self.fetcher.wake.set()
        self.changed.ring()

    async def _asked(self, link: Link, message: AskFiles | AskManifest | AskChunks) -> None:
        if link.answering >= limits.REQUESTS_OPEN:
            raise RemoteProtocolError("too many requests at once")
        link.answering += 1
        self._group.create_task(self._answer(link, message))

    async def _answer(self, link: Link, message: AskFiles | AskManifest | AskChunks) -> None:
        provider = self._provider
        try:
            if provider is None or self.held:
                await link.conversation.send(nothing(message))
                return
            async for answer in provider.answers(message):
                self.provided_bytes += content_bytes(answer)
                await link.conversation.send_bulk(answer)
            if provider.doubted:
                doubted, provider.doubted = provider.doubted, set()
                self.scan_soon({paths.parent(path) for path in doubted})
        except ChannelClosedError:
            pass
        finally:
            link.answering -= 1

    # ------------------------------------------------------------------ tending

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            if self.held:
                await self._try_again()
                continue
            await self.worker(self._collect)
            await self._compare_digests()

    async def _try_again(self) -> None:
        """The cause of the hold may be gone: open the root anew."""
        with suppress(AttributeError):
            await self.worker(self.root.close)
        await self._open_root()

    def _collect(self) -> None:
        """Collect tombstones every member is known to have taken in (design 4.7)."""
        known = self.index.peers_known()
        members = self._members()
        if not members or any(member not in known for member in members):
            return
        candidates = self.index.tombstones(limit=COLLECT_AT_ONCE)
        if candidates:
            draft = self.draft()
            draft.load(candidates)
            draft.collect([known[member] for member in members], candidates)
            self.index.write(draft.finish())

    async def _compare_digests(self) -> None:
        now = time.monotonic()
        if now - self._quiet_since < QUIET_S or now < self._digest_at or not self.links:
            return
        self._digest_at = now + DIGEST_S
        facts = self.index.facts()
        digest = Digest(self.folder, vector.digest(facts.known), self.index.digest())
        for link in list(self.links):
            with suppress(ChannelClosedError):
                await link.conversation.send(digest)

    async def _compare(self, link: Link, message: Digest) -> None:
        """Equal knowledge and different entries cannot be: start again from cursor 0."""
        facts = self.index.facts()
        if message.known != vector.digest(facts.known):
            return
        if message.digest != self.index.digest():
            logger.error("entries differ from a peer's though both know the same: relisting")
            link.exchange.relist()
            link.wake.set()

    # ------------------------------------------------------------------ what others see

    def _equal_with(self, link: Link) -> bool:
        told = link.exchange.told
        mine = self.index.facts().known
        return (
            told.marked
            and told.known is not None
            and told.need_files == 0
            and vector.includes(told.known, mine)
            and vector.includes(mine, told.known)
            and self.index.needed_totals()[0] == 0
        )

    async def equal_with(self, peer: bytes) -> bool:
        """Say whether this replica and this connected peer have everything of each other."""
        links = [link for link in self.links if link.conversation.key == peer]
        return bool(links) and await self.worker(self._equal_with, links[0])

    async def in_sync(self) -> bool:
        """Say whether this device and every connected member have everything; one at least."""
        links = list(self.links)
        return bool(links) and await self.worker(lambda: all(map(self._equal_with, links)))

    async def status(self) -> FolderStatus:
        """Return a snapshot for `status`."""
        if not self._opened.is_set():
            return self._snapshot(State.SCANNING, self.held, (0, 0), (0, 0))
        return await self.worker(self._look)

    def _look(self) -> FolderStatus:
        need, totals = self.index.needed_totals(), self.index.totals()
        state = self._state(need[0])
        detail = self._detail(need[0])
        return self._snapshot(state, detail, need, totals, tuple(self.index.conflicts()))

    def _snapshot(
        self,
        state: State,
        detail: str,
        need: tuple[int, int],
        totals: tuple[int, int],
        conflicts: tuple[bytes, ...] = (),
    ) -> FolderStatus:
        record = self.record
        problems = tuple(self.problems.values())
        return FolderStatus(
            record.root,
            FolderId(self.folder),
            record.name,
            state,
            detail,
            *need,
            *totals,
            conflicts,
            problems,
        )

    def _state(self, need: int) -> State:
        if self.held:
            return State.HELD
        alone = not self.links and bool(self._members())
        if self._safe and alone:
            return State.WAITING
        if self.scanning or self._safe:
            return State.SCANNING
        if need > len(self.problems) and self.links:
            return State.SYNCING
        if self.problems:
            return State.BLOCKED
        return State.WAITING if need or alone else State.UP_TO_DATE

    def _detail(self, need: int) -> str:
        if self.held:
            return self.held
        if not self.links and self._members():
            return "no other device of this folder is connected"
        if self.links and need and all(link.gone for link in self.links):
            return "waiting for a device that has the missing contents"
        return ""


def nothing(message: AskFiles | AskManifest | AskChunks) -> Message:
    """Return the answer of a replica that cannot give anything now."""
    match message:
        case AskFiles():
            return Files(message.request, [], message.contents, True)
        case AskManifest():
            return Manifest(message.request, b"", [])
        case AskChunks():
            return Chunks(message.request, [], [chunk[0] for chunk in message.chunks], True)


def content_bytes(answer: Files | Manifest | Chunks) -> int:
    """Return how many bytes of contents an answer carries."""
    match answer:
        case Files():
            return sum(len(data) for _, data in answer.files)
        case Chunks():
            return sum(len(data) for _, data in answer.chunks)
        case Manifest():
            return 0
