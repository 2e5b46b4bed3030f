"""Chunks and displaced contents are found again by hash."""

from __future__ import annotations

import pytest

from p2psync.core.index import Changes, Row, Want
from p2psync.core.observed import Manifest
from p2psync.store.contents import SOURCES_PER_CHUNK, HistoryRecord
from p2psync.store.index import Index
from tests.support.build import changes, content, file_place, file_row


def manifest(*chunks: str) -> Manifest:
    """The manifest of a large file whose chunks are of 100, 101, … bytes."""
    hashes = b"".join(content(chunk) for chunk in chunks)
    return Manifest(hashes, [100 + number for number in range(len(chunks))])


def stand(index: Index, *texts: str) -> None:
    """Put files of these contents on the disk."""
    rows: dict[bytes, Row | None] = {
        text.encode(): file_row(text.encode(), text) for text in texts
    }
    index.write(changes(index.facts(), rows=rows))


def test_a_manifest_is_found_by_content(index: Index) -> None:
    """What was put comes back; the first one of a content stays."""
    index.put_manifests([(content("film"), manifest("a", "b", "a"))])
    index.put_manifests([(content("film"), manifest("x"))])

    assert index.manifest(content("film")) == manifest("a", "b", "a")
    assert index.manifest(content("absent")) is None


def test_a_manifest_of_uneven_parts_is_refused(index: Index) -> None:
    """Hashes and sizes belong together; a broken one leaves nothing behind."""
    with pytest.raises(ValueError, match="one hash for each size"):
        index.put_manifests([(content("film"), Manifest(b"h" * 32, [1, 2]))])

    assert index.manifest(content("film")) is None


def test_chunks_are_found_where_files_stand(index: Index) -> None:
    """A chunk is looked for in files of this disk and in the history, nowhere else."""
    index.put_manifests(
        [
            (content("here"), manifest("a", "b", "c")),
            (content("kept"), manifest("x", "b")),
            (content("nowhere"), manifest("b", "d")),
        ]
    )
    stand(index, "here")
    index.add_history(b"1", b"old", content("kept"), 10, 1, "replaced")

    sources = index.chunk_sources([content(chunk) for chunk in "abcd"])

    assert sources == {
        content("a"): [(content("here"), 0, 100)],
        content("b"): [(content("kept"), 100, 101), (content("here"), 100, 101)],
        content("c"): [(content("here"), 201, 102)],
    }


def test_chunk_sources_are_few(index: Index) -> None:
    """A chunk that is everywhere (zeros) has a bounded number of sources."""
    texts = [f"image-{number}" for number in range(20)]
    index.put_manifests([(content(text), manifest("zero", "zero", text)) for text in texts])
    stand(index, *texts)

    sources = index.chunk_sources([content("zero")])

    assert len(sources[content("zero")]) == SOURCES_PER_CHUNK
    assert all(offset == 0 for _, offset, _ in sources[content("zero")])


def test_manifests_of_contents_that_are_gone_are_dropped(index: Index) -> None:
    """What stands, is wanted or is in the history keeps its manifest; the rest goes whole."""
    texts = ["stands", "wanted", "kept", "gone"]
    index.put_manifests([(content(text), manifest(text, "same")) for text in texts])
    stand(index, "stands")
    index.write(
        Changes(
            index.facts(), needed={b"w": Want(file_place(b"w", "wanted")), b"r": Want(None)}
        )
    )
    index.add_history(b"1", b"old", content("kept"), 10, 1, "replaced")

    assert index.prune_manifests() == 1
    assert index.prune_manifests() == 0

    assert [index.manifest(content(text)) is None for text in texts] == [
        *(False, False, False),
        True,
    ]
    stand(index, "gone")
    assert content("gone") not in index.chunk_sources([content("gone")])


def test_history_by_time_path_and_content(index: Index) -> None:
    """Displaced contents are listed oldest first, and found by what they hold."""
    records = [
        HistoryRecord(b"n%d" % number, path, content(text), 5, number, "replaced")
        for number, (path, text) in enumerate([(b"a", "x"), (b"b", "x"), (b"a", "y")])
    ]
    for record in reversed(records):
        index.add_history(*record)

    assert index.history() == records
    assert index.history(limit=1) == records[:1]
    assert index.history(before_ns=2) == records[:2]
    assert index.history(path=b"a") == [records[0], records[2]]
    assert index.history(path=b"a", before_ns=2) == [records[0]]
    assert index.history_with_content(content("x")) == [b"n1", b"n0"]
    assert index.history_with_content(content("z")) == []


def test_removed_history_is_gone(index: Index) -> None:
    """After retention a name is forgotten; forgetting an unknown one is no error."""
    index.add_history(b"1", b"a", content("x"), 5, 1, "deleted")
    index.add_history(b"2", b"a", content("x"), 5, 2, "deleted")

    index.remove_history([b"1", b"absent"])

    assert index.history_with_content(content("x")) == [b"2"]
