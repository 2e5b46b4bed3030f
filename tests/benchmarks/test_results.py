"""Results are kept: every value, case by case."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from benchmarks.results import load, merge
from tests.benchmarks.sample import result


def test_a_case_replaces_only_itself(tmp_path: Path) -> None:
    """Measured again, a case takes the place of its last result; the others stay."""
    file = tmp_path / "figures.json"
    merge(file, "one", result())
    merge(file, "other", result())
    newer = result()
    newer.add("cp", {"s": 2_500})
    merge(file, "one", newer)

    found = load(file)
    assert list(found.cases) == ["one", "other"]
    assert found.cases["one"].values["cp"]["s"] == [1_500, 2_500]
    assert found.cases["other"] == result()
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


def test_every_value_is_kept_in_order(tmp_path: Path) -> None:
    """One value a round or many: all of them are in the file, a list to a line."""
    file = tmp_path / "figures.json"
    merge(file, "one", result())
    text = file.read_text()
    values = json.loads(text)["cases"]["one"]["values"]["p2psync"]
    assert values == {"s": [4.5, 0.5, 1.0], "ms": [9.0, 90.0, 1.0, 10.0, 2.0, 20.0]}
    assert '"ms": [9.0, 90.0, 1.0, 10.0, 2.0, 20.0]' in text


def test_no_file_is_no_results(tmp_path: Path) -> None:
    """The first run begins with nothing."""
    assert load(tmp_path / "none.json").cases == {}


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that holds something else is never written over."""
    file = tmp_path / "package.json"
    file.write_text('{"cases": [1]}')
    with pytest.raises(msgspec.ValidationError):
        merge(file, "one", result())
    assert file.read_text() == '{"cases": [1]}'
