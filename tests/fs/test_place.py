"""Putting in place: what is shown, what is displaced, and what happens when it is not so."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from p2psync.core.entry import Kind
from p2psync.core.index import Row
from p2psync.core.problem import Problem, Reason
from p2psync.fs import syscalls
from p2psync.fs.root import Done, Surprised
from tests.support.folder import (
    DIRECTORY,
    MTIME_NS,
    Folder,
    Link,
    Thing,
    before_effect,
    place_of,
    thing_at,
    things_below,
)

KINDS: dict[str, tuple[Thing, Thing]] = {
    "file": (b"old", b"new"),
    "link": (Link(b"old"), Link(b"../new")),
    "directory": (DIRECTORY, DIRECTORY),
}
SWAPS = [pair for pair in itertools.product(KINDS, KINDS) if pair != ("directory",) * 2]


@pytest.fixture(params=["flags", "no-flags"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Folder]:
    """A folder, once where names can be exchanged and once where they cannot."""
    folder = Folder.make(tmp_path)
    yield folder.without_flags() if request.param == "no-flags" else folder
    folder.root.close()


def signature_is_true(folder: Folder, path: bytes, outcome: object) -> bool:
    """Say whether an outcome is Done with what a look says now."""
    return isinstance(outcome, Done) and outcome.signature == folder.root.look(path)


# ---------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_is_put_where_nothing_stands(folder: Folder, kind: str) -> None:
    """It stands there, the signature is that of a look, nothing is left in staging."""
    _, new = KINDS[kind]
    outcome = folder.root.put(folder.prepare(new), b"x", None)
    assert folder.shows(b"x") == new
    assert isinstance(outcome, Done)
    assert outcome.history is None
    if kind != "link":  # a link's mtime is now: it is looked at again
        assert signature_is_true(folder, b"x", outcome)
    assert folder.staged() == []


@pytest.mark.parametrize(("old", "new"), SWAPS)
def test_d03_any_kind_replaces_any_other(folder: Folder, old: str, new: str) -> None:
    """The new object stands there; a file or link displaced is in the history."""
    before, after = KINDS[old][0], KINDS[new][1]
    row = folder.stand(b"d/x", before)
    outcome = folder.root.put(folder.prepare(after), b"d/x", row)
    assert isinstance(outcome, Done)
    assert folder.shows(b"d/x") == after
    if old == "directory":
        assert outcome.history is None
        assert folder.kept() == {}
    else:
        assert outcome.history is not None
        assert folder.kept()[outcome.history] == before
    assert folder.staged() == []


def test_a_directory_is_not_replaced_by_a_directory(folder: Folder) -> None:
    """It is what is wanted already, with whatever is in it."""
    row = folder.stand(b"d", DIRECTORY)
    folder.write(b"d/inside", b"1")
    assert isinstance(folder.root.put(folder.prepare(DIRECTORY), b"d", row), Done)
    assert folder.visible() == {b"d": DIRECTORY, b"d/inside": b"1"}
    assert folder.staged() == []


def test_d02_a_directory_that_holds_something_is_not_replaced(folder: Folder) -> None:
    """It stays as it is, and the problem says why."""
    row = folder.stand(b"d", DIRECTORY)
    folder.write(b"d/ignored", b"1")
    prepared = folder.prepare(b"new")
    assert folder.root.put(prepared, b"d", row) == Problem(b"d", Reason.NOT_EMPTY)
    assert folder.visible() == {b"d": DIRECTORY, b"d/ignored": b"1"}
    folder.root.discard(prepared)
    assert folder.staged() == []


def test_mode_and_mtime_are_those_wanted(folder: Folder) -> None:
    """Executable for whoever may read, and the mtime to the nanosecond."""
    place = place_of(b"#!", executable=True, mtime_ns=MTIME_NS + 123_456_789)
    folder.root.put(folder.prepare(b"#!", place), b"run", None)
    status = os.stat(folder.at(b"run"))
    assert status.st_mode & 0o777 == 0o777 & ~_umask()
    assert status.st_mtime_ns == MTIME_NS + 123_456_789


def _umask() -> int:
    now = os.umask(0o022)
    os.umask(now)
    return now


@pytest.mark.parametrize(
    ("mode", "executable", "then"),
    [(0o600, False, 0o600), (0o600, True, 0o700), (0o755, False, 0o644), (0o4755, True, 0o755)],
)
def test_t43_a_file_replaced_keeps_its_permissions(
    folder: Folder, mode: int, executable: bool, then: int
) -> None:
    """But for execution; a private file never becomes readable, setuid never stays."""
    row = folder.stand(b"secret", b"old")
    os.chmod(folder.at(b"secret"), mode)
    row = row._replace(signature=folder.root.look(b"secret"))
    place = place_of(b"new", executable=executable)
    outcome = folder.root.put(folder.prepare(b"new", place), b"secret", row)
    assert signature_is_true(folder, b"secret", outcome)
    assert os.stat(folder.at(b"secret")).st_mode & 0o7777 == then


def test_what_was_prepared_for_another_place_gets_this_ones_metadata(folder: Folder) -> None:
    """A thing put aside is put back with what is wanted where it comes to stand."""
    row = folder.stand(b"x", b"bytes")
    aside = folder.root.prepare_aside(b"x", row)
    assert not isinstance(aside, Problem)
    wanted = place_of(b"bytes", executable=True, mtime_ns=5)
    outcome = folder.root.put(
        type(aside)(aside.name, wanted, aside.signature, aside.epoch), b"y", None
    )
    assert signature_is_true(folder, b"y", outcome)
    status = os.stat(folder.at(b"y"))
    assert (status.st_mtime_ns, status.st_mode & 0o100) == (5, 0o100)


# ---------------------------------------------------------------------- surprises


def test_b01_nothing_is_put_over_a_file_the_index_does_not_know(folder: Folder) -> None:
    """The unknown file stays; what was prepared can still be used."""
    folder.write(b"x", b"mine")
    prepared = folder.prepare(b"theirs")
    assert folder.root.put(prepared, b"x", None) == Surprised(b"x", folder.root.look(b"x"))
    assert folder.shows(b"x") == b"mine"
    assert isinstance(folder.root.put(prepared, b"y", None), Done)
    assert folder.shows(b"y") == b"theirs"


Edit = Callable[[Folder], None]


def in_place(folder: Folder) -> None:
    with open(folder.at(b"d/x"), "r+b") as file:
        file.write(b"EDITED")


def same_size(folder: Folder) -> None:
    with open(folder.at(b"d/x"), "r+b") as file:
        file.write(b"EDT")


def saved_atomically(folder: Folder) -> None:
    folder.write(b"d/.x.tmp", b"EDITED")
    os.replace(folder.at(b"d/.x.tmp"), folder.at(b"d/x"))


def made_a_link(folder: Folder) -> None:
    os.unlink(folder.at(b"d/x"))
    folder.write(b"d/x", Link(b"EDITED"))


def made_a_directory(folder: Folder) -> None:
    os.unlink(folder.at(b"d/x"))
    folder.write(b"d/x", DIRECTORY)
    folder.write(b"d/x/inside", b"EDITED")


EDITS = [in_place, same_size, saved_atomically, made_a_link, made_a_directory]
"""What a person may do to d/x."""


def acts(folder: Folder, row: Row) -> dict[str, Callable[[], object]]:
    """Return every act that displaces d/x."""
    new = place_of(b"new", executable=True, mtime_ns=5)
    other = folder.stand(b"d/other", b"other")
    return {
        "replace": lambda: folder.root.put(folder.prepare(b"new"), b"d/x", row),
        "replace-link": lambda: folder.root.put(folder.prepare(Link(b"n")), b"d/x", row),
        "replace-directory": lambda: folder.root.put(folder.prepare(DIRECTORY), b"d/x", row),
        "remove": lambda: folder.root.remove(b"d/x", row),
        "move": lambda: folder.root.move(b"d/x", b"y", row, place_of(b"old")),
        "move-onto": lambda: folder.root.move(b"d/x", b"d/other", row, new, other),
        "move-over-it": lambda: folder.root.move(
            b"d/other", b"d/x", other, place_of(b"other"), row
        ),
        "metadata": lambda: folder.root.set_metadata(
            b"d/x", place_of(b"old", executable=True, mtime_ns=5), row
        ),
    }


ACTS = [
    "replace",
    "replace-link",
    "replace-directory",
    "remove",
    "move",
    "move-onto",
    "move-over-it",
    "metadata",
]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_b02_an_edit_since_the_plan_stops_every_act(
    folder: Folder, act: str, edit: Edit
) -> None:
    """The edit stays at the path, nothing else has changed, and a scan is asked for."""
    row = folder.stand(b"d/x", b"old")
    todo = acts(folder, row)[act]
    edit(folder)
    before = folder.visible()
    outcome = todo()
    assert isinstance(outcome, Surprised)
    assert outcome.path == b"d/x"
    assert folder.visible() == before
    assert folder.kept() == {}


@pytest.mark.parametrize("act", ACTS)
def test_b04_a_delete_since_the_plan_stops_every_act(folder: Folder, act: str) -> None:
    """Nothing is made again, and nothing is lost."""
    row = folder.stand(b"d/x", b"old")
    todo = acts(folder, row)[act]
    os.unlink(folder.at(b"d/x"))
    assert todo() == Surprised(b"d/x", None)
    assert folder.visible() == {b"d": DIRECTORY, b"d/other": b"other"}


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_b03_no_edit_is_lost_whenever_it_comes(
    tmp_path: Path, folder: Folder, act: str, edit: Edit
) -> None:
    """Between any two effects of any act: the edited bytes are shown or in the history after.

    And what Done says stands there is what stands there.
    """
    for number in itertools.count(1):
        one = Folder.make(_fresh(tmp_path))
        one.root.traits = folder.root.traits
        row = one.stand(b"d/x", b"old")
        todo = acts(one, row)[act]

        edited: list[Thing | None] = []

        def edits(one: Folder = one, edited: list[Thing | None] = edited) -> None:
            if one.shows(b"d/x") is not None:
                edit(one)
                inside = one.shows(b"d/x/inside")
                edited.append(inside if inside is not None else one.shows(b"d/x"))

        with before_effect(number, edits) as effects:
            outcome = todo()
        one.root.recover()
        assert set(edited) <= one.retrievable(), (number, effects, outcome)
        if act != "move-over-it":  # there a person may edit it once it is shown at d/x
            assert b"other" in one.retrievable()
        if isinstance(outcome, Done) and outcome.signature is not None:
            assert signature_is_true(one, b"y" if act == "move" else b"d/x", outcome) or (
                act == "move-onto"
            )
        one.root.close()
        if len(effects) < number:
            break
        assert number < 60


@pytest.mark.slow
@pytest.mark.parametrize("act", ["replace", "replace-directory", "remove", "move-over-it"])
@pytest.mark.parametrize("gap", [0, 1, 2, 3])
@pytest.mark.parametrize("then", ["deletes", "saves"])
def test_b03_no_edit_is_lost_when_a_person_does_two_things(
    tmp_path: Path, folder: Folder, act: str, gap: int, then: str
) -> None:
    """Saves, and deletes or saves again what is shown some effects later.

    Gone is only what that person deleted or replaced.
    """
    for number in itertools.count(1):
        one = Folder.make(_fresh(tmp_path))
        one.root.traits = folder.root.traits
        row = one.stand(b"d/x", b"old")
        todo = acts(one, row)[act]
        saved: set[Thing] = set()
        undone: set[Thing | None] = set()

        def save(data: bytes, one: Folder = one, saved: set[Thing] = saved) -> None:
            if one.shows(b"d/x") != DIRECTORY:
                one.write(b"d/.x.tmp", data)
                os.replace(one.at(b"d/.x.tmp"), one.at(b"d/x"))
                saved.add(data)

        def second(one: Folder = one, undone: set[Thing | None] = undone) -> None:
            undone.add(one.shows(b"d/x"))
            if then == "saves":
                save(b"SECOND")
            elif one.shows(b"d/x") not in (None, DIRECTORY):
                os.unlink(one.at(b"d/x"))

        between: list[Callable[[], None]] = [lambda: None] * gap
        first = functools.partial(save, b"EDITED")
        with before_effect(number, first, *between, second) as effects:
            todo()
        one.root.recover()
        assert saved - undone <= one.retrievable()
        one.root.close()
        if len(effects) < number:
            break
        assert number < 60


def _fresh(tmp_path: Path) -> Path:
    path = tmp_path / "fresh"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def test_a_row_without_signature_is_believed_by_its_content(folder: Folder) -> None:
    """The bytes decide: the same are displaced, others are left."""
    row = folder.stand(b"x", b"old")._replace(signature=None)
    os.utime(folder.at(b"x"))  # just now: no look can be trusted
    assert isinstance(folder.root.put(folder.prepare(b"new"), b"x", row), Done)
    outcome = folder.root.put(folder.prepare(b"newer"), b"x", row)
    assert isinstance(outcome, Surprised)
    assert folder.shows(b"x") == b"new"


def test_what_was_changed_just_now_gets_no_signature(folder: Folder) -> None:
    """A write within the grain of the mtime would not show in it."""
    place = place_of(b"new", mtime_ns=syscalls.now_ns())
    assert folder.root.put(folder.prepare(b"new", place), b"x", None) == Done(None, None)


def test_a_directory_that_fills_up_while_it_is_displaced_comes_back(
    tmp_path: Path, folder: Folder
) -> None:
    """At whatever moment: what a person puts into it stays in it, or is kept."""
    for number in itertools.count(1):
        one = Folder.make(_fresh(tmp_path))
        one.root.traits = folder.root.traits
        row = one.stand(b"d", DIRECTORY)
        inside = os.open(one.at(b"d"), os.O_RDONLY)  # a shell that stands in it

        filled: list[bool] = []

        def fill(inside: int = inside, filled: list[bool] = filled) -> None:
            try:
                os.close(os.open(b"mine", os.O_CREAT, dir_fd=inside))
            except FileNotFoundError:  # the directory has just been removed
                return
            filled.append(True)

        with before_effect(number, fill) as effects:
            one.root.put(one.prepare(b"new"), b"d", row)
        os.close(inside)
        one.root.recover()
        names = {os.path.basename(path) for path in [*one.visible(), *one.kept()]}
        assert not filled or b"mine" in names
        one.root.close()
        if len(effects) < number:
            break


# ---------------------------------------------------------------------- remove, directories


@pytest.mark.parametrize("thing", [b"old", Link(b"old")])
def test_a_removed_thing_is_in_the_history(folder: Folder, thing: Thing) -> None:
    """The path is empty and the content is kept under a name made of the path."""
    row = folder.stand(b"docs/report.txt", thing)
    outcome = folder.root.remove(b"docs/report.txt", row)
    assert isinstance(outcome, Done)
    assert outcome.history is not None
    assert folder.visible() == {b"docs": DIRECTORY}
    day, directory, name = outcome.history.split(b"/")
    assert (len(day), directory) == (10, b"docs")
    assert name.startswith(b"report~")
    assert name.endswith(b".txt")
    assert folder.kept()[outcome.history] == thing


def test_directories_are_made_and_removed(folder: Folder) -> None:
    """Made once; made again changes nothing; removed only when empty."""
    made = folder.root.make_directory(b"d")
    assert signature_is_true(folder, b"d", made)
    assert isinstance(folder.root.make_directory(b"d"), Done)
    row = Row(place_of(DIRECTORY), folder.root.look(b"d"))
    folder.write(b"d/x", b"1")
    assert folder.root.remove_directory(b"d", row) == Problem(b"d", Reason.NOT_EMPTY)
    assert folder.root.remove(b"d", row) == Problem(b"d", Reason.NOT_EMPTY)
    os.unlink(folder.at(b"d/x"))
    assert folder.root.remove_directory(b"d", row) == Done(None, None)
    assert folder.root.remove_directory(b"d", row) == Surprised(b"d", None)
    assert folder.visible() == {}


def test_a_directory_is_not_made_over_something_else(folder: Folder) -> None:
    """What stands there stays."""
    folder.write(b"d", Link(b"/tmp"))
    assert isinstance(folder.root.make_directory(b"d"), Surprised)
    assert folder.shows(b"d") == Link(b"/tmp")


# ---------------------------------------------------------------------- moves, metadata


def test_l11_a_move_moves_no_content(folder: Folder) -> None:
    """The same inode stands at the new path, with the metadata wanted there."""
    row = folder.stand(b"a/x", b"bytes")
    folder.root.make_directory(b"b")
    outcome = folder.root.move(b"a/x", b"b/y", row, place_of(b"bytes"))
    assert signature_is_true(folder, b"b/y", outcome)
    assert row.signature is not None
    assert os.stat(folder.at(b"b/y")).st_ino == row.signature.inode
    assert folder.shows(b"a/x") is None
    again = place_of(b"bytes", executable=True, mtime_ns=9)
    row = Row(place_of(b"bytes"), folder.root.look(b"b/y"))
    assert folder.root.move(b"b/y", b"z", row, again) == Done(None, None)
    status = os.stat(folder.at(b"z"))
    assert (status.st_mtime_ns, status.st_mode & 0o100) == (9, 0o100)


def test_e12_a_move_onto_something_keeps_what_it_displaces(folder: Folder) -> None:
    """Target displaced into the history, source moved onto it."""
    row, target = folder.stand(b"x", b"moved"), folder.stand(b"y", b"displaced")
    outcome = folder.root.move(b"x", b"y", row, place_of(b"moved"), target)
    assert isinstance(outcome, Done)
    assert folder.visible() == {b"y": b"moved"}
    assert list(folder.kept().values())[-1] == b"displaced"
    assert folder.staged() == []


def test_a_move_never_lands_on_something_unknown(folder: Folder) -> None:
    """Both stay where they are."""
    row = folder.stand(b"x", b"moved")
    folder.write(b"y", b"unknown")
    assert isinstance(folder.root.move(b"x", b"y", row, place_of(b"moved")), Surprised)
    assert folder.visible() == {b"x": b"moved", b"y": b"unknown"}


def test_metadata_is_set_and_looked_at_again(folder: Folder) -> None:
    """No signature is claimed: a write in that moment would not show."""
    row = folder.stand(b"x", b"bytes")
    place = place_of(b"bytes", executable=True, mtime_ns=77)
    assert folder.root.set_metadata(b"x", place, row) == Done(None, None)
    status = os.stat(folder.at(b"x"))
    assert (status.st_mtime_ns, status.st_mode & 0o100) == (77, 0o100)


def test_d04_metadata_is_never_set_through_a_link(folder: Folder, tmp_path: Path) -> None:
    """A path that became a link is left, and so is what it points to."""
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(b"outside")
    before = os.stat(outside)
    row = folder.stand(b"x", b"bytes")
    os.unlink(folder.at(b"x"))
    folder.write(b"x", Link(os.fsencode(outside)))
    place = place_of(b"bytes", executable=True, mtime_ns=77)
    assert isinstance(folder.root.set_metadata(b"x", place, row), Surprised)
    # nor where the row is of something that has to be read
    row = row._replace(signature=None)
    assert isinstance(folder.root.set_metadata(b"x", place, row), Surprised)
    assert os.stat(outside) == before


# ---------------------------------------------------------------------- confinement


def everything(folder: Folder, row: Row, other: Row) -> dict[str, Callable[[], object]]:
    """Return every act on d/x and every one that looks at it."""
    root = folder.root
    return {
        "put": lambda: root.put(folder.prepare(b"new"), b"d/x", None),
        "replace": lambda: root.put(folder.prepare(b"new"), b"d/x", row),
        "link": lambda: root.put(folder.prepare(Link(b"n")), b"d/x", row),
        "remove": lambda: root.remove(b"d/x", row),
        "move-from": lambda: root.move(b"d/x", b"y", row, place_of(b"old")),
        "move-to": lambda: root.move(b"other", b"d/x", other, place_of(b"other")),
        "move-onto": lambda: root.move(b"other", b"d/x", other, place_of(b"other"), row),
        "metadata": lambda: root.set_metadata(b"d/x", place_of(b"old", mtime_ns=5), row),
        "make": lambda: root.make_directory(b"d/new"),
        "remove-directory": lambda: root.remove_directory(
            b"d/x", row._replace(place=place_of(DIRECTORY))
        ),
        "copy": lambda: root.prepare_copy(b"d/x", place_of(b"old"), row),
        "look": lambda: root.look(b"d/x"),
    }


EVERYTHING = [
    "put",
    "replace",
    "link",
    "remove",
    "move-from",
    "move-to",
    "move-onto",
    "metadata",
    "make",
    "remove-directory",
    "copy",
    "look",
]


@pytest.mark.slow
@pytest.mark.parametrize("act", EVERYTHING)
def test_t18_h05_h06_a_link_above_is_never_crossed(
    tmp_path: Path, folder: Folder, act: str
) -> None:
    """The directory above becomes a link to outside, at any moment of any act.

    What is outside stays as it is, and no content of the folder is lost.
    """
    for number in itertools.count(0):  # 0: before the act begins
        one = Folder.make(_fresh(tmp_path))
        one.root.traits = folder.root.traits
        outside = _outside(tmp_path)
        row, other = one.stand(b"d/x", b"old"), one.stand(b"other", b"other")
        before = things_below(outside)

        def swap(one: Folder = one, outside: bytes = outside) -> None:
            os.rename(one.at(b"d"), one.at(b"moved"))
            os.symlink(outside, one.at(b"d"))

        todo = everything(one, row, other)[act]
        if number == 0:
            swap()
            outcome = todo()
            assert outcome is None or isinstance(outcome, Surprised | Problem)
        with before_effect(number, swap) as effects:
            if number:
                todo()
        assert things_below(outside) == before
        one.root.recover()
        assert things_below(outside) == before
        assert {b"old", b"other"} <= one.retrievable()
        one.root.close()
        if number and len(effects) < number:
            break


def _outside(tmp_path: Path) -> bytes:
    outside = tmp_path / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    (outside / "x").write_bytes(b"old")
    os.utime(outside / "x", ns=(MTIME_NS, MTIME_NS))
    return os.fsencode(outside)


def test_h04_nothing_is_written_through_a_link_at_the_path(folder: Folder) -> None:
    """A file that replaces a link replaces the link."""
    folder.write(b"target", b"target")
    row = folder.stand(b"x", Link(b"target"))
    assert isinstance(folder.root.put(folder.prepare(b"new"), b"x", row), Done)
    assert folder.visible() == {b"target": b"target", b"x": b"new"}


def test_j03_a_parent_that_is_no_directory_is_a_surprise(folder: Folder) -> None:
    """And so is one that is missing: nobody makes it again silently (B05)."""
    folder.write(b"file", b"1")
    for path in (b"file/x", b"missing/x"):
        assert folder.root.put(folder.prepare(b"new"), path, None) == Surprised(path, None)
        assert folder.root.look(path) is None


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(b"n" * 251 + b".txt", id="g02-255-bytes"),
        pytest.param("ü".encode() * 127 + b"x", id="g02-255-bytes-of-utf8"),
        pytest.param(b"caf\xe9 \xff\xfe", id="f12-not-utf8"),
        pytest.param(b"a\nb\tc\x1b[31m -%?#'\"\\", id="f13-control-characters"),
        pytest.param(b"-rf", id="f13-leading-dash"),
    ],
)
def test_any_name_can_be_put_replaced_moved_and_removed(folder: Folder, name: bytes) -> None:
    """Byte for byte, with nothing left over."""
    put = folder.root.put(folder.prepare(b"one"), name, None)
    assert isinstance(put, Done)
    put = folder.root.put(folder.prepare(b"two"), name, Row(place_of(b"one"), put.signature))
    assert isinstance(put, Done)
    moved = folder.root.move(
        name, b"short", Row(place_of(b"two"), put.signature), place_of(b"two")
    )
    assert isinstance(moved, Done)
    back = folder.root.move(
        b"short", name, Row(place_of(b"two"), moved.signature), place_of(b"two")
    )
    assert isinstance(back, Done)
    assert folder.visible() == {name: b"two"}
    gone = folder.root.remove(name, Row(place_of(b"two"), back.signature))
    assert isinstance(gone, Done)
    assert folder.visible() == {}
    assert sorted(t for t in folder.kept().values() if isinstance(t, bytes)) == [b"one", b"two"]
    assert folder.staged() == []


def test_g02_a_name_too_long_is_a_problem(folder: Folder) -> None:
    """With its reason; what was prepared is still there."""
    prepared = folder.prepare(b"one")
    outcome = folder.root.put(prepared, b"n" * 256, None)
    assert isinstance(outcome, Problem)
    assert outcome.reason is Reason.NAME_TOO_LONG
    assert folder.staged() == [prepared.name]


def test_g03_a_path_longer_than_the_kernel_takes(folder: Folder) -> None:
    """Directories, a file, its replacement and its removal, 40 levels and 10,000 bytes down."""
    path = b""
    for _ in range(40):
        path = os.path.join(path, b"d" * 250)
        assert isinstance(folder.root.make_directory(path), Done)
    deep = os.path.join(path, b"file")
    put = folder.root.put(folder.prepare(b"one"), deep, None)
    assert isinstance(put, Done)
    put = folder.root.put(folder.prepare(b"two"), deep, Row(place_of(b"one"), put.signature))
    assert isinstance(put, Done)
    assert folder.root.look(deep) == put.signature
    gone = folder.root.remove(deep, Row(place_of(b"two"), put.signature))
    assert isinstance(gone, Done)
    assert gone.history is not None
    os.close(folder.root.history.open(gone.history))
    folder.root.sync_directories([path])
    for _ in range(40):
        row = Row(place_of(DIRECTORY), folder.root.look(path))
        assert folder.root.remove_directory(path, row) == Done(None, None)
        path = os.path.dirname(path)
    assert len(folder.root.prune_history(2**62)) == 2
    assert folder.kept() == {}


def test_kinds_are_told_apart(folder: Folder) -> None:
    """What is neither file, directory nor link is never displaced (H11)."""
    row = folder.stand(b"x", b"old")
    os.unlink(folder.at(b"x"))
    os.mkfifo(folder.at(b"x"))
    for given in (row, row._replace(signature=None)):
        assert isinstance(folder.root.put(folder.prepare(b"n"), b"x", given), Surprised)
        assert isinstance(folder.root.remove(b"x", given), Surprised)
        assert isinstance(folder.root.prepare_copy(b"x", row.place, given), Problem)
    assert row.place.kind is Kind.FILE
    assert thing_kind(folder.at(b"x")) == "fifo"


def thing_kind(path: bytes) -> str:
    """Return "fifo" for one."""
    return "fifo" if stat.S_ISFIFO(os.lstat(path).st_mode) else str(thing_at(path))
