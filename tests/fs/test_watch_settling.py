"""fs.watch.settling: a save is ready at once, what may be half a change waits, not for ever."""

from __future__ import annotations

import itertools
import math

import pytest

from p2psync.fs.watch import inotify, settling
from p2psync.fs.watch.inotify import Event
from p2psync.fs.watch.settling import LONGEST_S, QUIET_S, Settled, Settling

LATER = QUIET_S + 0.001
DIRECTORY = inotify.IS_DIRECTORY


def event(mask: int, name: str, *, cookie: int = 0, watch: int = 1) -> Event:
    """One event of the kernel."""
    return (watch, mask, cookie, name.encode())


def moved(source: str, target: str, kind: int = 0) -> list[Event]:
    """A rename inside what is watched."""
    return [
        event(inotify.MOVED_FROM | kind, source, cookie=7),
        event(inotify.MOVED_TO | kind, target, cookie=7),
    ]


def keys(*names: str) -> set[tuple[int, bytes]]:
    """Names in the directory of watch 1."""
    return {(1, name.encode()) for name in names}


def written(name: str) -> list[Event]:
    """A new file, written and closed."""
    masks = (inotify.CREATE, inotify.MODIFY, inotify.CLOSE_WRITE)
    return [event(mask, name) for mask in masks]


def test_a_closed_file_is_ready_and_waits_no_more() -> None:
    """A save is looked at once, now."""
    it = Settling()
    it.take(written("x"), 0.0)
    assert it.due(0.0) == Settled(keys("x"))
    assert it.due(LATER) == Settled()
    assert it.next_due == math.inf


@pytest.mark.parametrize(
    "mask", [inotify.CREATE, inotify.MODIFY, inotify.ATTRIB, inotify.DELETE, inotify.MOVED_FROM]
)
def test_what_may_be_half_a_change_waits(mask: int) -> None:
    """A file that is not closed, or a name that is gone, is left alone for a moment."""
    it = Settling()
    it.take([event(mask, "x")], 0.0)
    assert it.due(0.0) == Settled()
    assert it.next_due == QUIET_S
    assert it.due(LATER) == Settled(keys("x"))
    assert it.due(2 * LATER) == Settled()


def test_nothing_waits_for_ever() -> None:
    """A file that is written all the time is looked at after a second."""
    it = Settling()
    for step in itertools.count():
        now = step * QUIET_S / 2
        it.take([event(inotify.MODIFY, "log")], now)
        if it.due(now).names:
            break
        assert now < LONGEST_S
    assert now > LONGEST_S - 2 * QUIET_S


def test_saving_by_rename_is_ready() -> None:
    """A file that was just made is ready under its new name, and the old one with it."""
    it = Settling()
    it.take([*written("x.tmp"), *moved("x.tmp", "x")], 0.0)
    assert it.due(0.0) == Settled(keys("x", "x.tmp"))
    assert it.due(LATER) == Settled()


def test_a_file_from_elsewhere_is_ready() -> None:
    """What comes from where nobody looks, as our own apply does, is complete."""
    it = Settling()
    it.take([event(inotify.MOVED_TO, "x", cookie=7)], 0.0)
    assert it.due(0.0) == Settled(keys("x"))


def test_both_names_of_a_rename_come_together() -> None:
    """A scan that misses the old name sees the new one."""
    it = Settling()
    it.take(moved("x", "y"), 0.0)
    assert it.due(0.0) == Settled()
    assert it.due(LATER) == Settled(keys("x", "y"))


def test_an_editor_that_renames_the_old_file_away() -> None:
    """The name that is back at once is never looked at while it is gone."""
    it = Settling()
    it.take(moved("x", "x~"), 0.0)
    assert it.due(0.0) == Settled()
    it.take([*written("x"), event(inotify.DELETE, "x~")], QUIET_S / 2)
    assert it.due(QUIET_S / 2) == Settled(keys("x"))
    assert it.due(2 * LATER) == Settled(keys("x~"))


def test_a_directory_is_watched_at_once() -> None:
    """One that is made or comes in is to be watched; renamed, with the name it had."""
    it = Settling()
    it.take([event(inotify.CREATE | DIRECTORY, "a"), *moved("b", "c", DIRECTORY)], 0.0)
    assert it.due(0.0) == Settled(made={(1, b"a"): None, (1, b"c"): (1, b"b")})
    assert it.due(LATER) == Settled()


def test_a_directory_that_left_is_watched_no_more() -> None:
    """It has departed when it was not seen anywhere else for a moment."""
    it = Settling()
    it.take([event(inotify.MOVED_FROM | DIRECTORY, "a", cookie=7)], 0.0)
    assert it.due(0.0) == Settled()
    assert it.due(LATER) == Settled(keys("a"), departed=keys("a"))
    it.take([event(inotify.MOVED_TO | DIRECTORY, "a", cookie=7)], LATER)
    assert it.due(LATER) == Settled(made={(1, b"a"): None})


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Very many names are the directories they are in, and are ready."""
    monkeypatch.setattr(settling, "WAITING", 3)
    it = Settling()
    it.take([event(inotify.DELETE, name, watch=watch) for name in "ab" for watch in (1, 2)], 0)
    assert it.due(0.0) == Settled(crowded={1, 2})
