"""Rows are found by path, directory and content; needs come in the order asked for."""

from __future__ import annotations

from p2psync.core.entry import Kind
from p2psync.core.index import Changes, Place, Row, Want
from p2psync.store.index import Index
from p2psync.store.rows import FIRST
from tests.support.build import (
    changes,
    content,
    directory_place,
    directory_row,
    file_place,
    file_row,
)


def stand(index: Index, *paths: bytes) -> None:
    """Put a file at each path, a directory where it ends with a slash."""
    rows: dict[bytes, Row | None] = {}
    for path in paths:
        if path.endswith(b"/"):
            rows[path[:-1]] = directory_row(path[:-1])
        else:
            rows[path] = file_row(path, "text")
    index.write(changes(index.facts(), rows=rows))


def test_children_are_what_is_directly_inside(index: Index) -> None:
    """Deeper paths and neighbours that sort between them are told apart."""
    stand(
        index,
        b"d/",
        *(b"d/a/", b"d/a/x", b"d/a/y/", b"d/a/y/z", b"d/a!", b"d/a-", b"d/a0", b"d/b"),
        *(b"d-", b"d0", b"e"),
    )

    assert sorted(index.children(b"d")) == [b"a", b"a!", b"a-", b"a0", b"b"]
    assert sorted(index.children(b"")) == [b"d", b"d-", b"d0", b"e"]
    assert list(index.children(b"d/a/y")) == [b"z"]
    assert index.children(b"d/b") == index.children(b"absent") == {}
    assert index.children(b"d")[b"b"] == file_row(b"d/b", "text")


def test_children_of_large_directories(index: Index) -> None:
    """Many files among many subdirectories are all found, and only they."""
    files = [b"big/%05d" % number for number in range(0, 3_000, 3)]
    inner = [b"big/%05d/x" % number for number in range(1, 3_000, 3)]
    stand(index, *files, *inner, *(path[:-1] for path in inner))

    names = sorted(index.children(b"big"))

    assert names == sorted(path[4:9] for path in [*files, *inner])


def test_children_by_bytes_that_are_no_text(index: Index) -> None:
    """Names are bytes; the highest ones too."""
    stand(index, b"\xff" * 255, b"d/\xff\xfe", b"d/\x01")

    assert list(index.children(b"")) == [b"\xff" * 255]
    assert sorted(index.children(b"d")) == [b"\x01", b"\xff\xfe"]


def test_rows_with_content_are_some_regular_files(index: Index) -> None:
    """A content is found wherever it stands, up to the limit; a directory is no content."""
    stand(index, b"dir/", *(b"copy-%02d" % number for number in range(20)))

    found = index.rows_with_content(content("text"))

    assert len(found) == 8
    assert all(row == file_row(path, "text") for path, row in found)
    assert len(index.rows_with_content(content("text"), limit=50)) == 20
    assert index.rows_with_content(content("other")) == []
    assert index.rows_with_content(b"") == []


def test_a_copy_is_shown_elsewhere_until_its_row_goes(index: Index) -> None:
    """The disk's conflict copies of a home are known by its name."""
    copy = file_row(b"a (copy)", "loser", home=b"a")
    index.write(
        changes(index.facts(), rows={b"a": file_row(b"a", "winner"), b"a (copy)": copy})
    )

    assert index.shown_elsewhere(b"a") == {b"a (copy)": copy}
    index.write(changes(index.facts(), rows={b"a (copy)": None}))
    assert index.shown_elsewhere(b"a") == {}


def test_totals_count_regular_files(index: Index) -> None:
    """Directories and links are on the disk, but are neither files nor bytes."""
    link = Place(Kind.LINK, content("to"), 0, b"to", False, 0, frozenset(), b"link")
    rows: dict[bytes, Row | None] = {
        b"d": directory_row(b"d"),
        b"d/a": file_row(b"d/a", "a", size=5),
        b"d/b": file_row(b"d/b", "b", size=7),
        b"link": Row(link, None),
    }
    index.write(changes(index.facts(), rows=rows))
    assert index.totals() == (2, 12)

    index.write(changes(index.facts(), rows={b"d/a": file_row(b"d/a", "c", size=1)}))
    index.write(changes(index.facts(), rows={b"d/b": directory_row(b"d/b"), b"absent": None}))

    assert index.totals() == (1, 1)


def need(index: Index, wants: dict[bytes, Want | None]) -> None:
    """Write needs alone."""
    index.write(Changes(index.facts(), needed=wants))


def test_needs_come_ascending_or_smallest_first(index: Index) -> None:
    """Directories and removals come before files, files by powers of two of their size."""
    need(
        index,
        {
            b"big": Want(file_place(b"big", "a", size=2**40)),
            b"small": Want(file_place(b"small", "b", size=3)),
            b"empty": Want(file_place(b"empty", "", size=0)),
            b"middle-2": Want(file_place(b"middle-2", "c", size=5_000)),
            b"middle-1": Want(file_place(b"middle-1", "d", size=8_000)),
            b"zz-remove": Want(None),
            b"z-directory": Want(directory_place(b"z-directory")),
            b"agreed": None,
        },
    )
    order = [b"empty", b"z-directory", b"zz-remove", b"small", b"middle-1", b"middle-2", b"big"]

    assert [path for path, _ in index.needed(limit=99)] == sorted(order)
    assert [path for path, _ in index.needed_by_size(FIRST, 99)[0]] == order
    assert index.needed(limit=1)[0] == (b"big", Want(file_place(b"big", "a", size=2**40)))
    assert index.needed_totals() == (7, 2**40 + 13_003)


def test_needs_page_by_page(index: Index) -> None:
    """Each order goes on behind a path, also behind one that is done meanwhile."""
    paths = [b"path-%02d" % number for number in range(20)]
    need(index, {path: Want(file_place(path, "x", size=len(path))) for path in paths})
    found: list[bytes] = []
    while page := index.needed(limit=7, after=found[-1] if found else b""):
        found += [path for path, _ in page]
    assert found == paths

    found, position = [], FIRST
    while True:
        page, position = index.needed_by_size(position, 7)
        if not page:
            break
        found += [path for path, _ in page]
        need(index, {page[-1][0]: None})
    assert found == paths
    assert index.needed(limit=1, after=b"path-06")[0][0] == b"path-07"


def test_a_need_keeps_the_home_of_a_copy(index: Index) -> None:
    """What is wanted at a conflict copy's name comes back with its home."""
    want = Want(file_place(b"a (copy)", "loser", home=b"a"))

    need(index, {b"a (copy)": want})

    assert index.needed(limit=9) == [(b"a (copy)", want)]
