"""What was displaced, kept for a while: names, days, and never a second name of live data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.core.index import Row
from p2psync.fs import syscalls
from p2psync.fs.history import DAY_NS, kept_name
from p2psync.fs.root import Done
from tests.support.folder import DIRECTORY, Folder, place_of

NOON_NS = 1_795_435_200 * 10**9  # 2026-11-23 12:00 UTC


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder.make(tmp_path)
    yield folder
    folder.root.close()


def remove(folder: Folder, path: bytes, data: bytes) -> bytes:
    """Remove a file; return its name in the history."""
    gone = folder.root.remove(path, folder.stand(path, data))
    assert isinstance(gone, Done)
    assert gone.history is not None
    assert folder.kept()[gone.history] == data
    return gone.history


@pytest.mark.parametrize(
    ("base", "name"),
    [
        (b"report.txt", b"report~120000-3f9a.txt"),
        (b"Makefile", b"Makefile~120000-3f9a"),
        (b".bashrc", b".bashrc~120000-3f9a"),
        (b"a.tar.gz", b"a.tar~120000-3f9a.gz"),
        (b"x." + b"y" * 20, b"x." + b"y" * 20 + b"~120000-3f9a"),
        (b"n" * 255, b"n" * 243 + b"~120000-3f9a"),
        ("ü".encode() * 126 + b".ab", "ü".encode() * 120 + b"~120000-3f9a.ab"),
        (b"\xff" * 255, b"\xff" * 243 + b"~120000-3f9a"),
        (b"", b"~120000-3f9a"),
    ],
)
def test_a_name_says_when_and_keeps_its_ending(base: bytes, name: bytes) -> None:
    """A person finds it and opens it; a character is never cut in half."""
    assert kept_name(base, b"120000-3f9a") == name


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name))
def test_g02_no_name_is_too_long(base: bytes) -> None:
    """Whatever it is made of."""
    name = kept_name(base, b"120000-3f9a")
    assert len(name) <= 255
    assert b"~120000-3f9a" in name
    if len(base) + 12 <= 255:
        assert name.replace(b"~120000-3f9a", b"") == base


def test_the_tree_of_the_day_is_that_of_the_folder(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One directory a day, and below it where things stood."""
    monkeypatch.setattr(syscalls, "now_ns", lambda: NOON_NS)
    name = remove(folder, b"docs/a/report.txt", b"1")
    assert name.startswith(b"2026-11-23/docs/a/report~120000-")
    assert remove(folder, b"top", b"2").startswith(b"2026-11-23/top~120000-")


def test_the_same_name_is_kept_any_number_of_times(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even within one second."""
    monkeypatch.setattr(syscalls, "now_ns", lambda: NOON_NS)
    names = {remove(folder, b"x", b"%d" % number) for number in range(50)}
    assert len(names) == 50


def test_a_tree_that_is_in_the_way_keeps_nothing_out(folder: Folder) -> None:
    """Where a directory cannot be made in the history, the day's own takes the file."""
    day = remove(folder, b"x", b"1").split(b"/")[0]
    folder.write(b".p2psync/history/" + day + b"/docs", b"a file where a directory must be")
    assert remove(folder, b"docs/report.txt", b"2").startswith(day + b"/~")


def test_h09_what_has_another_name_is_kept_as_a_copy(folder: Folder) -> None:
    """An edit through the other name does not reach the history."""
    row = folder.stand(b"x", b"old")
    os.link(folder.at(b"x"), folder.at(b"second"))
    row = Row(row.place, folder.root.look(b"x"))
    put = folder.root.put(folder.prepare(b"new"), b"x", row)
    assert isinstance(put, Done)
    assert put.history is not None
    with open(folder.at(b"second"), "r+b") as file:
        file.write(b"EDT")
    assert folder.kept()[put.history] == b"old"
    assert folder.visible() == {b"x": b"new", b"second": b"EDT"}
    assert os.stat(folder.at(b"second")).st_nlink == 1
    assert folder.staged() == []


def test_whole_days_are_pruned(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ended before; what else is there is nobody's to remove."""
    names = {}
    for day in (0, 1, 2):
        monkeypatch.setattr(syscalls, "now_ns", lambda day=day: NOON_NS + day * DAY_NS)
        names[day] = remove(folder, b"deep/down/x", b"%d" % day)
    folder.write(b".p2psync/history/notes.txt", b"a person's")
    assert folder.root.prune_history(NOON_NS) == []
    removed = folder.root.prune_history(NOON_NS + DAY_NS + DAY_NS // 2)
    assert removed == [names[0], names[1]]
    assert {thing for thing in folder.kept().values() if thing != DIRECTORY} == {
        b"2",
        b"a person's",
    }
    assert os.listdir(folder.at(b".p2psync/history")).__len__() == 2


def test_k02_a_day_named_by_a_wrong_clock_gets_its_full_time(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that boots into 1970 does not lose its history when the clock is set."""
    monkeypatch.setattr(syscalls, "now_ns", lambda: 5 * DAY_NS)
    remove(folder, b"x", b"1970")
    assert folder.root.prune_history(5 * DAY_NS) == []  # it is 1970 still
    monkeypatch.setattr(syscalls, "now_ns", lambda: NOON_NS)
    assert folder.root.prune_history(NOON_NS - 30 * DAY_NS) == []
    assert b"1970" in folder.kept().values()
    assert folder.root.prune_history(NOON_NS - DAY_NS) == []
    assert len(folder.root.prune_history(NOON_NS + DAY_NS)) == 1


def test_g04_a_thousand_levels_are_kept_and_pruned(folder: Folder) -> None:
    """Without recursion, and holding few descriptors."""
    path = b""
    for _ in range(1_000):
        path = os.path.join(path, b"d")
        folder.root.make_directory(path)
    deep = os.path.join(path, b"x")
    put = folder.root.put(folder.prepare(b"1"), deep, None)
    assert isinstance(put, Done)
    gone = folder.root.remove(deep, Row(place_of(b"1"), put.signature))
    assert isinstance(gone, Done)
    assert folder.root.prune_history(2**62) == [gone.history]
    for _ in range(1_000):
        row = Row(place_of(DIRECTORY), folder.root.look(path))
        folder.root.remove_directory(path, row)
        path = os.path.dirname(path)
    assert folder.visible() == {}
