"""Tests of `store.moves`: what is asked of whole directories, and renaming one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.core.index import Changes
from p2psync.core.moves import MoveDirectory, directory_moves
from p2psync.errors import StoreError
from p2psync.store import moves
from p2psync.store.index import Index
from p2psync.store.rows import FIRST
from tests.core.test_plan import Tree, folder
from tests.support.dict_index import DictIndex

MANY = [b"%04d" % number for number in range(40)]
BEFORE: Tree = {
    b"d": "/",
    b"d-x": "/",
    b"d-x/f": "f",
    b"d/e": "/",
    **{b"d/e/" + name: f"e {name!r}" for name in MANY},
    **{b"d/" + name: f"d {name!r}" for name in MANY},
    b"d0": "beside",
    b"link": "-> d",
    b"old": "/",
    b"\xff\xfe": "/",
    b"\xff\xfe/\x01": "strange",
}
AFTER: Tree = {
    b"d0": "beside",
    b"new": "/",
    b"new/d": "/",
    b"new/d/e": "/",
    **{b"new/d/e/" + name: f"e {name!r}" for name in MANY},
    **{b"new/d/" + name: f"d {name!r}" for name in MANY},
    b"new/d/extra": "more",
    b"\xff": "/",
    b"\xff/\x01": "strange",
}


@pytest.fixture
def model() -> DictIndex:
    """What an index holds whose disk is BEFORE, and that was told of AFTER."""
    return folder(BEFORE, AFTER)


@pytest.fixture
def index(model: DictIndex, tmp_path: Path) -> Iterator[Index]:
    """The same in SQLite."""
    made = Index.open(tmp_path / "index.db", start=1)
    entries = {p: (model.arrived[p], entry) for p, entry in model.all_entries.items()}
    made.write(
        Changes(model.now, {**entries}, {**model.all_rows}, model.all_claims, {**model.needed})
    )
    yield made
    made.close()


def same(index: Index, model: DictIndex) -> None:
    """Everything about rows and needs is the same."""
    assert dict(index.rows_in(b"")) == model.all_rows
    assert dict(index.wants_in(b"")) == dict(index.needed(limit=999)) == model.needed
    assert dict(index.needed_by_size(FIRST, 999)[0]) == model.needed
    assert index.totals() == (
        sum(row.place.kind == 1 for row in model.all_rows.values()),
        sum(row.place.size for row in model.all_rows.values()),
    )
    wanted = [want.place.size for want in model.needed.values() if want.place]
    assert index.needed_totals() == (len(model.needed), sum(wanted))


@pytest.mark.parametrize("looks", [1, 1_000])
def test_every_question_has_the_same_answer_as_in_dicts(
    index: Index, model: DictIndex, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many paths are read at a time."""
    monkeypatch.setattr(moves, "FIRST_LOOK", looks)
    monkeypatch.setattr(moves, "LOOK", looks)
    same(index, model)
    assert list(index.directories_going()) == list(model.directories_going())
    assert list(index.directories_coming()) == list(model.directories_coming())
    for path in (b"d", b"new", b"new/d", b"d-x", b"\xff", b"absent"):
        assert list(index.rows_in(path)) == list(model.rows_in(path))
        assert list(index.wants_in(path)) == list(model.wants_in(path))
    assert index.wants([b"d", b"new/d/extra", b"d0"]) == model.wants([b"d", b"new/d/extra"])
    assert directory_moves(index) == directory_moves(model)


@pytest.mark.parametrize("looks", [1, 1_000])
def test_a_directory_gets_another_name_with_all_below(
    index: Index, model: DictIndex, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows show what was wanted, their signatures stay; what is met is needed no more."""
    monkeypatch.setattr(moves, "LOOK", looks)
    for step in directory_moves(model):
        if isinstance(step, MoveDirectory):
            index.rename_directory(step.source, step.path)
            model.rename_directory(step.source, step.path)
    same(index, model)
    assert b"new/d/extra" in model.needed
    assert index.rows_with_content(model.all_rows[b"new/d/0001"].place.content) == [
        (b"new/d/0001", model.all_rows[b"new/d/0001"])
    ]


def test_what_does_not_fit_is_refused_whole(index: Index, model: DictIndex) -> None:
    """A row that is wanted nowhere there: nothing of the rename is written."""
    with pytest.raises(StoreError, match="does not fit"):
        index.rename_directory(b"d", b"\xff")
    same(index, model)
