"""What an engine survives, and what it lets go of: trouble with one thing ends nothing else."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from pathlib import Path

import pytest

from p2psync.errors import ExitCode, UserError
from tests.support.engines import PATIENCE_S, Machine, Town, town


async def pair(made: Town) -> tuple[Machine, Machine, Path]:
    """Let a and b share a folder; return a's root too."""
    a, b = made.machines
    root = await a.founds()
    a.invites(b)
    b.joins(a)
    await a.meets(b)
    await b.meets(a)
    return a, b, root


def execute(machine: Machine, statement: str) -> None:
    """Do something to the database of a machine's home behind its back."""
    connection = sqlite3.connect(machine.places.database)
    connection.execute(statement)
    connection.commit()
    connection.close()


async def test_isolation_a_home_that_cannot_be_written_ends_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a session ends and that cannot be noted, the next one comes all the same."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, root = await pair(made)
        full = "BEGIN SELECT RAISE(FAIL, 'disk is full'); END"
        execute(a, f"CREATE TRIGGER full BEFORE UPDATE ON peers {full}")
        await b.stop()
        await a.until(lambda: a.engine.connected(b.id) is None)
        await b.start()
        made.wire.sight()
        await a.meets(b)
        (root / "f").write_text("goes on")

        await b.shows(b.path / "folder" / "f", "goes on")
        execute(a, "DROP TRIGGER full")


async def test_isolation_a_bug_with_one_peer_ends_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever dialling raises, the peer is tried again and the agent lives."""
    async with town(tmp_path, monkeypatch, "a") as made:
        a = made.machines[0]
        monkeypatch.setattr("p2psync.engine.household.RESTART_S", 0.1)
        await a.founds()
        dialled: list[bool] = []

        async def dial(peer: object, tls_only: bool) -> None:
            dialled.append(tls_only)
            raise ValueError("a bug")

        monkeypatch.setattr(a.engine._network, "dial", dial)
        other = Machine(made.wire, tmp_path, "b")
        a.invites(other)
        await a.until(lambda: len(dialled) > 1)

    assert "a bug" in caplog.text


async def test_a_forgotten_clone_holds_nothing_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder held because a peer's key is in use twice goes on when it is forgotten."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b, _ = await pair(made)
        a.engine._cloned(b.id)
        assert a.replica().held
        await a.engine.forget(str(b.id), None)

        async with asyncio.timeout(PATIENCE_S):
            while a.replica().held:
                await a.replica().changed.wait(0.1)


async def test_convergence_three_replicas_here_go_on_when_the_first_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas of one folder on one device stay joined whichever of them is left."""
    async with town(tmp_path, monkeypatch, "a") as made:
        a = made.machines[0]
        roots = {await a.founds(name="one"): None}
        for name in ("two", "three"):
            folder = a.replica().record.folder
            root = a.root(name)
            a.engine.add_replica(os.fsencode(root), folder, name)
            roots[root] = None
        first = next(iter(a.engine.replicas))
        left = a.engine.replicas[first].record.root
        await a.engine.leave(left, purge=False)
        here, there = (root for root in roots if os.fsencode(root) != left)
        (here / "f").write_text("1")
        await a.shows(there / "f", "1")
        (there / "g").write_text("2")

        await a.shows(here / "g", "2")


async def test_a_place_that_is_new_is_dialled_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sighting at a new address does not wait for the pace of dials for old reasons."""
    async with town(tmp_path, monkeypatch, "a") as made:
        a = made.machines[0]
        await a.founds()
        dialled: list[float] = []

        async def dial(peer: object, tls_only: bool) -> None:
            dialled.append(time.monotonic())

        monkeypatch.setattr(a.engine._network, "dial", dial)
        other = Machine(made.wire, tmp_path, "b")
        a.invites(other)
        await a.until(lambda: bool(dialled))
        a.engine.peers[other.id].seen([("192.0.2.1", 4711)])
        await a.until(lambda: len(dialled) > 1)

        assert dialled[1] - dialled[0] < 1


async def test_leaving_a_place_inside_a_folder_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who names a directory inside a folder does not mean the whole folder."""
    async with town(tmp_path, monkeypatch, "a") as made:
        a = made.machines[0]
        root = await a.founds(name="photos")
        (root / "sub").mkdir()
        with pytest.raises(UserError, match="inside"):
            await a.engine.leave(os.fsencode(root / "sub"), purge=True)

        assert a.engine.replicas


async def test_a_root_of_another_agent_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One directory cannot be two replicas, not even of two agents (P13)."""
    async with town(tmp_path, monkeypatch, "a", "b") as made:
        a, b = made.machines
        root = await a.founds(name="photos")
        with pytest.raises(UserError, match="somebody else") as refused:
            async for _ in b.engine.share(os.fsencode(root), None):
                pass

        assert refused.value.exit_code is ExitCode.USAGE
