"""Isolation: what is blocked stops nothing else, is tried at a pace and clears itself."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from pathlib import Path

import pytest

from p2psync.core.problem import Problem, Reason
from p2psync.engine import fetch
from p2psync.engine.events import Event, Finished, State
from p2psync.engine.following import SETTLED_S, finished, follow
from p2psync.engine.link import GIVING_AT_ONCE
from p2psync.engine.scanning import Found
from p2psync.errors import ExitCode
from p2psync.fs import syscalls
from tests.support.replicas import PATIENCE_S, Site, cluster


async def until(site: Site, *states: State) -> None:
    """Wait until a site is in one of these states."""
    async with asyncio.timeout(PATIENCE_S):
        while (await site.replica.status()).state not in states:
            await site.replica.changed.wait(0.1)


@pytest.mark.parametrize("blocked", ["d", "d/f"], ids=["its directory", "the file"])
async def test_isolation_what_cannot_be_put_in_place_is_not_fetched_again_and_again(
    tmp_path: Path, blocked: str
) -> None:
    """Where something stands in the way, contents travel once or twice, not without end."""
    async with cluster(tmp_path, "a", "b") as made:
        a, b = made.sites["a"], made.sites["b"]
        (b.root / blocked).parent.mkdir(exist_ok=True)
        os.mkfifo(b.root / blocked)
        (a.root / "d").mkdir()
        (a.root / "d/f").write_bytes(b"x" * 1000)
        await a.replica.survey.now()
        await b.replica.survey.now()
        made.join("a", "b")
        await until(b, State.BLOCKED)
        (a.root / "other").write_text("goes on")
        async with asyncio.timeout(PATIENCE_S):
            while not (b.root / "other").exists():
                await b.replica.changed.wait(0.1)
        await asyncio.sleep(2)

        assert a.replica.provided_bytes < 6_000


async def test_isolation_what_is_no_longer_in_the_way_is_no_problem_any_more(
    tmp_path: Path,
) -> None:
    """A problem with something that is gone clears itself."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        b = made.sites["b"]
        await made.settled()
        os.mkfifo(b.root / "pipe")
        await b.replica.survey.now()
        status = await b.replica.status()
        assert [problem.path for problem in status.problems] == [b"pipe"]
        assert status.state is State.UP_TO_DATE  # nobody could ever sync it
        assert finished(status).exit_code is ExitCode.DONE
        (b.root / "pipe").unlink()
        await b.replica.survey.now()
        assert (await b.replica.status()).problems == ()

        await until(b, State.UP_TO_DATE)


async def test_convergence_contents_refused_while_held_are_asked_for_again(
    tmp_path: Path,
) -> None:
    """A peer whose disk is back gives what it could not give before, on the same session."""
    async with cluster(tmp_path, "a", "b") as made:
        a, b = made.sites["a"], made.sites["b"]
        (a.root / "f").write_text("1")
        await a.replica.survey.now()
        a.root.rename(tmp_path / "unmounted")
        await a.replica.survey.now()
        assert a.replica.held
        made.join("a", "b")
        async with asyncio.timeout(PATIENCE_S):
            while not any(link.gone for link in b.replica.links):
                await b.replica.changed.wait(0.05)
        (tmp_path / "unmounted").rename(a.root)
        async with asyncio.timeout(PATIENCE_S):
            while a.replica.held:
                await a.replica.changed.wait(0.1)

        assert await made.settled() == {"f": b"1"}


@pytest.mark.parametrize("failing", ["contents", "names"])
async def test_i13_a_disk_that_does_not_keep_what_is_written_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """An error while making things durable is shown; when it is over, all goes on by itself."""
    monkeypatch.setattr(fetch, "RETRY_S", 0.3)
    broken = False
    sync, sync_all = syscalls.fsync, syscalls.sync_filesystem

    def fsync(file: int) -> None:
        if broken and stat.S_ISDIR(os.fstat(file).st_mode) == (failing == "names"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(file)

    def sync_filesystem(file: int) -> None:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync_all(file)

    monkeypatch.setattr(syscalls, "fsync", fsync)
    monkeypatch.setattr(syscalls, "sync_filesystem", sync_filesystem)
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        await made.settled()
        broken = True
        (a.root / "f").write_text("1")
        await until(b, State.BLOCKED, State.HELD)
        status = await b.replica.status()
        assert status.problems or "does not keep" in status.detail
        broken = False

        assert await made.settled() == {"f": b"1"}


async def test_a_problem_here_does_not_cut_the_following_of_a_peer_short(
    tmp_path: Path,
) -> None:
    """What is blocked on this side ends `share` and `wait` only when the peer has the rest."""
    async with cluster(tmp_path, "a", "b", lines="ab") as made:
        a, b = made.sites["a"], made.sites["b"]
        await made.settled()
        (giving,) = (link.giving for link in a.replica.links)
        for _ in range(GIVING_AT_ONCE):
            await giving.acquire()
        (a.root / "f").write_text("1")
        await a.replica.survey.now()
        problem = Problem(b"x/mount", Reason.MOUNTED)
        a.replica.problems.note(Found(problems={problem.path: problem}))

        async def follow_to_the_end() -> Event:
            return [event async for event in follow(a.replica, b.key)][-1]

        following = asyncio.create_task(follow_to_the_end())
        await asyncio.sleep(2 * SETTLED_S)
        assert not following.done()
        for _ in range(GIVING_AT_ONCE):
            giving.release()
        async with asyncio.timeout(PATIENCE_S):
            end = await following

        assert isinstance(end, Finished)
        assert end.exit_code is ExitCode.CONFLICTS
        assert (b.root / "f").read_text() == "1"
