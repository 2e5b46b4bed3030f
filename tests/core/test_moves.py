"""Tests of `core.moves`: whole directories that only have to be renamed."""

from __future__ import annotations

import pytest

from p2psync.core.moves import MoveDirectory, directory_moves
from p2psync.core.plan import MakeDirectory
from tests.core.test_plan import Tree, folder

PHOTOS = {
    b"photos": "/",
    b"photos/a": "1",
    b"photos/l": "-> a",
    b"photos/sub": "/",
    b"photos/sub/b": "2",
}


def moved(tree: Tree, source: bytes, path: bytes) -> dict[bytes, str]:
    """The tree with one directory under another name."""
    return {
        path + at[len(source) :] if at == source or at.startswith(source + b"/") else at: what
        for at, what in tree.items()
    }


def found(before: Tree, after: Tree, *unfit: bytes) -> list[tuple[bytes, bytes]]:
    """The renames for a disk that is `before` and was told of `after`; b"" for a new one."""
    steps = directory_moves(folder(before, after), unfit)
    seen: set[bytes] = set()
    for step in steps:
        assert step.after <= seen
        seen.add(step.path)
    return [
        (step.source if isinstance(step, MoveDirectory) else b"", step.path) for step in steps
    ]


@pytest.mark.parametrize(
    ("source", "path"),
    [(b"photos", b"pictures"), (b"photos/sub", b"photos/bus"), (b"photos/sub", b"top")],
)
def test_a_renamed_directory_is_one_step(source: bytes, path: bytes) -> None:
    """Wherever in the tree it is, and wherever it goes."""
    assert found(PHOTOS, moved(PHOTOS, source, path)) == [(source, path)]


def test_it_may_go_into_a_new_directory() -> None:
    """That one is made before, as far up as is needed."""
    after = {b"new": "/", b"new/er": "/", **moved(PHOTOS, b"photos", b"new/er/photos")}
    steps = [(b"", b"new"), (b"", b"new/er"), (b"photos", b"new/er/photos")]
    assert found(PHOTOS, after) == steps


def test_what_is_wanted_there_besides_does_not_matter() -> None:
    """A file that was put in after the rename comes later."""
    after = {**moved(PHOTOS, b"photos", b"pictures"), b"pictures/0": "new", b"pictures/n": "/"}
    assert found(PHOTOS, after) == [(b"photos", b"pictures")]


@pytest.mark.parametrize(
    "change",
    [{b"pictures/a": "edited"}, {b"pictures/l": "-> b"}, {b"pictures/a": "/"}],
    ids=["content", "link", "kind"],
)
def test_where_one_file_differs_the_rest_moves_in_large_parts(change: Tree) -> None:
    """The directory itself is made anew, and what is whole in it is moved into that."""
    after = {**moved(PHOTOS, b"photos", b"pictures"), **change}
    assert found(PHOTOS, after) == [(b"", b"pictures"), (b"photos/sub", b"pictures/sub")]


def test_where_one_file_was_deleted_the_rest_moves_in_large_parts() -> None:
    """What is to go is not taken along."""
    after = moved(PHOTOS, b"photos", b"pictures")
    del after[b"pictures/a"]
    assert found(PHOTOS, after) == [(b"", b"pictures"), (b"photos/sub", b"pictures/sub")]


def test_a_directory_that_is_merged_into_another_moves_in_parts() -> None:
    """Where something stands already nothing is renamed onto it."""
    before = {**PHOTOS, b"pictures": "/", b"pictures/z": "z"}
    after = {b"pictures/z": "z", **moved(PHOTOS, b"photos", b"pictures")}
    assert found(before, after) == [(b"photos/sub", b"pictures/sub")]


def test_what_is_known_not_to_be_as_its_row_says_is_left_out() -> None:
    """Its parts are tried."""
    after = moved(PHOTOS, b"photos", b"pictures")
    expected = [(b"", b"pictures"), (b"photos/sub", b"pictures/sub")]
    assert found(PHOTOS, after, b"photos") == expected
    assert found(PHOTOS, after, b"photos", b"photos/sub") == []


def test_two_that_look_alike_go_to_different_places() -> None:
    """No place is given twice."""
    before = {b"a": "/", b"a/x": "1", b"b": "/", b"b/x": "1"}
    after = {b"c": "/", b"c/x": "1", b"d": "/", b"d/x": "1"}
    assert sorted(path for _, path in found(before, after)) == [b"c", b"d"]


@pytest.mark.parametrize(
    "after",
    [
        {},
        {b"photos": "/", **moved(PHOTOS, b"photos", b"copy"), **PHOTOS},
        {b"photos": "now a file"},
        {b"pictures": "/", b"pictures/other": "1"},
    ],
    ids=["deleted", "copied", "replaced", "another name within"],
)
def test_what_is_no_rename_of_a_directory_is_left_alone(after: Tree) -> None:
    """Deleting, copying, replacing."""
    assert found(PHOTOS, after) == []


def test_nothing_is_moved_where_a_file_stands_in_the_way() -> None:
    """A file that is to become a directory is the plan's business."""
    before = {**PHOTOS, b"x": "file"}
    after = {b"x": "/", **moved(PHOTOS, b"photos", b"x/photos")}
    assert found(before, after) == []


def test_a_made_directory_comes_with_what_the_view_wants() -> None:
    """So that its row is what is wanted."""
    index = folder(PHOTOS, {b"n": "/", **moved(PHOTOS, b"photos", b"n/photos")})
    make, move = directory_moves(index)
    assert isinstance(make, MakeDirectory)
    assert make.place == index.needed[b"n"].place
    assert isinstance(move, MoveDirectory)
    assert move.place == index.needed[b"n/photos"].place
    assert move.row == index.all_rows[b"photos"]
