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
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from p2psync.core import paths, vector
from p2psync.core.index import Want
from p2psync.engine.apply import Applied
from p2psync.engine.conversation import Conversation
from p2psync.engine.exchange import Exchange
from p2psync.engine.fetch import Fetcher
from p2psync.engine.link import Link
from p2psync.engine.problems import Problems
from p2psync.engine.provide import Provider, content_bytes, is_edit, nothing
from p2psync.engine.scanning import Found, told_something
from p2psync.engine.signal import Bell
from p2psync.engine.standing import Standing
from p2psync.engine.stock import Stock
from p2psync.engine.survey import Survey
from p2psync.engine.worker import Worker
from p2psync.errors import (
    ChannelClosedError,
    P2PSyncError,
    RemoteProtocolError,
    RootTrouble,
)
from p2psync.fs.partial import Partial
from p2psync.fs.scan import RULES_NAME
from p2psync.fs.staging import Prepared
from p2psync.fs.watch import Hint, Watching
from p2psync.protocol import limits
from p2psync.protocol.messages import (
    AskChunks,
    AskFiles,
    AskManifest,
    Attach,
    Digest,
    Entries,
    Knowledge,
    Mark,
    Message,
    Recognised,
)
from p2psync.store.home import FolderRecord

logger = logging.getLogger(__name__)

INBOX = 64
NOT_OPEN = "the replica is not open"
TEND_S = 1.0
IDLE_S = (
    20.0  # between two rounds of tending when nothing happens: ten folders wake as one does
)
QUIET_S = 60.0
DIGEST_S = 600.0
PRUNE_S = 3_600.0
CALM_UNITS = 4  # of the worker in one round of tending: fewer, and nothing much goes on
BURST_UNITS = 12  # of the worker: so many leave behind what is worth giving back


class Replica(Standing):
    """One folder at one root on this device.

    Args:
        record: where it is and what it is called.
        directory: where the index databases live.
        members: returns the peer keys of all *other* members, this device's twins included.
        watching: where the watchers of all roots come from.
    """

    def __init__(
        self,
        record: FolderRecord,
        directory: Path,
        members: Callable[[], Collection[bytes]],
        watching: Watching,
    ) -> None:
        self.record = record
        self.folder: bytes = bytes(record.folder)
        self.links: list[Link] = []
        self.changed = Bell()
        self.trouble = "the agent has just started"  # with the root or its rules, in words
        self.clash = ""  # one key is in use on two devices
        self.failure = ""  # why it ended, or ended the last time before it opens, in words
        self.problems = Problems()
        self.provided_bytes = 0
        self.messages = 0
        self.worker = Worker(f"replica-{record.name}")
        self.fetcher = Fetcher(self)
        self.survey = Survey(self)
        self.stock: Stock
        self._directory = directory
        self._members = members
        self._watcher = watching.watcher(record.root)
        self._provider: Provider | None = None
        self._inbox: asyncio.Queue[tuple[Link, Message]] = asyncio.Queue(INBOX)
        self._opened = asyncio.Event()
        self._ended = False
        self._may_adopt = False
        self._quiet_since = time.monotonic()
        self._digest_at = 0.0
        self._prune_at = time.monotonic() + TEND_S
        self._collected: tuple[object, ...] = ()  # what there was when it was tried last
        self._units = (0, 0)  # of the worker, at the last round of tending and the last rest
        self._group: asyncio.TaskGroup
        self._stopping = asyncio.Event()

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Own the replica until `stop`; returns when everything is closed."""
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._end()  # first: no new work for tasks that end
            for task in (work, stop):
                task.cancel()
            (outcome, _) = await asyncio.gather(work, stop, return_exceptions=True)
            if hasattr(self, "stock"):
                await self.worker(self.stock.close)
            self.worker.close()
        if isinstance(outcome, Exception):
            self.failure = cause(outcome)
            raise outcome

    def _end(self) -> None:
        """Let go of everybody who waits for something of this replica."""
        self._ended = True
        self.failure = "it is not synced any more"
        for link in list(self.links):
            self.detach(link)
        while not self._inbox.empty():
            self._inbox.get_nowait()
        self.survey.give_up()
        self._opened.set()
        self.changed.ring()

    async def _work(self) -> None:
        joining = bool(self._members())
        self.stock = await self.worker(Stock, self.record, self._directory, joining=joining)
        await self._open_root()
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._serve())
            group.create_task(self.survey.run())
            group.create_task(self.fetcher.run())
            group.create_task(self._watch())
            group.create_task(self._tend())
            self._opened.set()

    def stop(self) -> None:
        """Ask the replica to end; `run` returns soon after."""
        self._stopping.set()

    async def opened(self) -> None:
        """Wait until it `is_open`, or has ended instead.

        Open: the index is, and what was needed at the last end has been looked at.
        """
        await self._opened.wait()

    async def _open_root(self) -> None:
        try:
            for found in await self.worker(lambda: list(self.stock.open_root())):
                self.note(found)
        except RootTrouble as trouble:
            self.hold(str(trouble))
            return
        self._provider = Provider(self.stock.index, self.stock.root, self.worker)
        self._watcher.renew()
        self._release()
        for link in list(self.links):
            await self.worker(link.exchange.speak_up)
            link.wake.set()

    def set_clash(self, clash: str) -> None:
        """Hold the replica because of a cloned device, or ("") let it go on."""
        if clash != self.clash:
            self.clash = clash
            self.survey.follow(Hint(everything=True))
            self.fetcher.look_again()
            self.changed.ring()

    @property
    def may_apply(self) -> bool:
        """False while held, and in safe mode until what is here has been adopted."""
        return not self.held and not self.stock.safe

    # ------------------------------------------------------------------ holding

    def hold(self, reason: str) -> None:
        """Stop scanning and applying until the cause, in words, is gone."""
        if self.trouble != reason:
            logger.warning("%s is held: %s", paths.printable(self.record.root), reason)
        self.trouble = reason
        self.changed.ring()

    def _release(self) -> None:
        self.trouble = ""
        self.survey.follow(Hint(everything=True))
        self.fetcher.look_again()
        self.changed.ring()

    # ------------------------------------------------------------------ small helpers

    def _wake_links(self) -> None:
        for link in self.links:
            link.wake.set()

    def stirred(self) -> None:
        """The index changed: look at the needs, tell peers and those who watch."""
        self.fetcher.look_again()
        self._moved()

    def _moved(self) -> None:
        """The index changed: tell peers and those who watch."""
        self._quiet_since = time.monotonic()
        self._wake_links()
        self.changed.ring()

    # ------------------------------------------------------------------ applying

    async def apply(
        self,
        wants: Mapping[bytes, Want],
        staged: Mapping[bytes, Prepared],
        large: Mapping[bytes, Partial],
    ) -> Applied:
        """Apply one batch in the worker thread; nothing while that may not be."""
        if not self.may_apply:
            return Applied()
        try:
            return await self.worker(self.stock.apply, wants, staged, large)
        except RootTrouble as trouble:
            self.hold(str(trouble))
            return Applied()

    async def move_directories(self) -> Applied:
        """Rename whole directories in the worker thread; nothing while that may not be."""
        if not self.may_apply:
            return Applied()
        try:
            return await self.worker(lambda: self.stock.mover.move_all())
        except RootTrouble as trouble:
            self.hold(str(trouble))
            return Applied()

    def took(self, applied: Applied) -> None:
        """Note the outcome of a batch."""
        self.problems.took(applied)
        if applied.rescan:
            self.survey.follow(
                Hint(directories={paths.parent(path) for path in applied.rescan})
            )
        if RULES_NAME in applied.done:
            self.survey.follow(Hint(everything=True))
        if applied.done:
            self._moved()
        self.changed.ring()

    # ------------------------------------------------------------------ scanning

    @property
    def may_scan(self) -> bool:
        """False while held, and in safe mode before a peer has told what there should be."""
        return not self.held and (not self.stock.safe or self._may_adopt)

    def surveyed(self) -> None:
        """A scan is over."""
        self.fetcher.look_again()
        self._wake_links()  # a mark may have waited for it
        self.changed.ring()

    def note(self, found: Found) -> None:
        """Keep what a unit of scanning found out."""
        self.problems.note(found)

    async def _watch(self) -> None:
        async for hint in self._watcher.hints(self._stopping):
            self.survey.follow(hint)

    # ------------------------------------------------------------------ peers

    @asynccontextmanager
    async def attached(self, conversation: Conversation) -> AsyncIterator[Link]:
        """Exchange with a peer for as long as the context lasts; only while `is_open`.

        Raises:
            ChannelClosedError: the replica or the conversation is about to end.
        """
        if not self.is_open or conversation.closing:  # it may have been replaced already
            raise ChannelClosedError(NOT_OPEN)
        exchange = Exchange(
            self.stock.index,
            self.folder,
            conversation.key,
            self.stock.draft,
            self._need,
            self._stuck,
            self.stock.settled,
        )
        link = Link(conversation, exchange, self.worker)
        sending = self._sender(link)
        try:
            sender = self._group.create_task(sending)
        except RuntimeError as error:  # the group is ending
            sending.close()
            raise ChannelClosedError(NOT_OPEN) from error
        for earlier in list(self.links):
            if earlier.conversation.key == conversation.key:
                self.detach(earlier)  # what it still says must not mix with a new listing
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
        self.fetcher.look_again()
        self.changed.ring()

    async def _sender(self, link: Link) -> None:
        with suppress(ChannelClosedError):
            await link.conversation.send(await self.worker(link.exchange.attach))
            await link.send_entries()

    async def receive(self, link: Link, message: Message) -> None:
        """Take one message of a peer about this folder; waits while the inbox is full."""
        if link not in self.links:
            return  # it was detached a moment ago, or the replica has ended
        self.messages += 1
        if isinstance(message, AskFiles | AskManifest | AskChunks):
            await self._asked(link, message)
        else:
            await link.turns.acquire()  # who says much has to queue like anybody else
            await self._inbox.put((link, message))

    async def _serve(self) -> None:
        while True:
            link, message = await self._inbox.get()
            try:
                if link in self.links:
                    await self._take(link, message)
            except RemoteProtocolError as error:
                link.conversation.fail(str(error))
            except ChannelClosedError:
                pass
            except (P2PSyncError, OSError):
                raise  # our own disk or index fails: start anew
            except Exception:
                logger.exception("a bug while taking a message of a peer")
                link.conversation.fail("internal error")
            finally:
                link.turns.release()

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
                with link.batch.page():
                    changes = await self.worker(exchange.take_entries, message)
                if told_something(changes):
                    self.fetcher.fresh(changes.needed)
                    self._moved()
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
        link.batch.end()
        self.fetcher.wake.set()
        if self.stock.safe and not self._may_adopt:
            self._may_adopt = True
            self.survey.follow(Hint(everything=True))
        if changes.entries or link.exchange.told.known != before.known:
            self.stirred()
        self._peer_moved(link)

    def _peer_moved(self, link: Link) -> None:
        """The peer may have got contents it lacked a moment ago."""
        if link.gone:
            link.gone.clear()
            self.fetcher.look_again()
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
            async with link.giving_chunks if isinstance(message, AskChunks) else link.giving:
                give = (
                    link.conversation.send if is_edit(message) else link.conversation.send_bulk
                )
                async for answer in provider.answers(message, link.conversation.pace):
                    if link not in self.links:
                        return  # a member no longer
                    self.provided_bytes += content_bytes(answer)
                    await give(answer)
            if provider.doubted:
                doubted, provider.doubted = provider.doubted, set()
                self.survey.follow(Hint(paths=doubted))
        except ChannelClosedError:
            pass
        except RemoteProtocolError as error:
            link.conversation.fail(str(error))
        finally:
            link.answering -= 1

    # ------------------------------------------------------------------ tending

    async def _tend(self) -> None:
        while True:
            before = self.worker.units
            await asyncio.sleep(TEND_S)
            if self.worker.units == before and self._has_nothing_to_tend():
                await self.changed.wait(IDLE_S)
            if self.trouble:
                await self._try_again()
                continue
            if self.stock.received or len(self.problems):
                self._wake_links()  # how far a large file is, or that it gets no further
                self.changed.ring()
            if self.stock.index.unsettled:
                await self.worker(self.stock.index.settle)
            await self._forget_problems()
            await self._collect()
            if time.monotonic() >= self._prune_at:
                self._prune_at = time.monotonic() + PRUNE_S
                await self.worker(self.stock.prune)
            await self._compare_digests()
            await self._rest()

    def _has_nothing_to_tend(self) -> bool:
        waits = self.trouble or self.stock.received or len(self.problems)
        return not waits and self.worker.units - self._units[1] < BURST_UNITS

    async def _collect(self) -> None:
        """Collect tombstones, if something changed since that was tried the last time.

        With 50,000 of them one try costs 10 ms: ten idle folders would not idle.
        """
        members = self._members()
        now = (self.stock.index.written, *sorted(members))
        if now != self._collected:
            self._collected = now
            await self.worker(self.stock.collect, members)

    async def _rest(self) -> None:
        """When a burst is over, give back the memory it needed."""
        before, rested = self._units
        done = self.worker.units
        if done - before < CALM_UNITS and done - rested >= BURST_UNITS:
            await self.worker(self.stock.rest)
            rested = self.worker.units
        self._units = (self.worker.units, rested)

    async def _try_again(self) -> None:
        """The cause of the hold may be gone: open the root anew."""
        await self._open_root()

    async def _forget_problems(self) -> None:
        """What could not be applied may be wanted no longer."""
        met = self.problems.met()
        if met and self.problems.keep(await self.worker(self.stock.index.still_needed, met)):
            self.changed.ring()

    async def _compare_digests(self) -> None:
        now = time.monotonic()
        if now - self._quiet_since < QUIET_S or now < self._digest_at or not self.links:
            return
        self._digest_at = now + DIGEST_S
        digest = await self.worker(self._digest)
        for link in list(self.links):
            with suppress(ChannelClosedError):
                await link.conversation.send(digest)

    def _digest(self) -> Digest:
        index = self.stock.index
        return Digest(self.folder, vector.digest(index.facts().known), index.digest())

    async def _compare(self, link: Link, message: Digest) -> None:
        """Equal knowledge and different entries cannot be: start again from cursor 0."""
        mine = await self.worker(self._digest)
        if mine.known == message.known and mine.digest != message.digest:
            now = time.monotonic()
            if now < link.relisted_at + QUIET_S:
                return  # listed just now; nobody compares as often
            link.relisted_at = now
            logger.error("entries differ from a peer's though both know the same: relisting")
            await self.worker(link.exchange.relist)
            link.wake.set()


def cause(error: BaseException) -> str:
    """Return in words what failed first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
