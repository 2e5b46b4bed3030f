"""Tables, the page and the pictures show the figures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import chart, report, tables
from benchmarks.__main__ import JSON, PAGE
from benchmarks.case import Case, Lines
from benchmarks.cases import CASES
from benchmarks.results import Results, load
from tests.benchmarks.sample import CASE, result

LINES = dataclasses.replace(
    CASE, chart=Lines("by size", {"cp": 10.0, "rsync": 1_000.0}, ("s", "p99 ms"))
)


def test_a_table_has_medians_and_ratios() -> None:
    """Medians per subject, in the order of the case; a dash where nothing was measured."""
    assert tables.table(CASE, result()) == [
        ["", "s", "p99 ms", "x rsync"],
        ["cp", "1,500.00", "-", "750.00"],
        ["rsync", "2.00", "-", "1.00"],
        ["p2psync", "1.00", "90.0", "0.50"],
    ]


def test_both_forms_of_a_table() -> None:
    """For the terminal numbers stand under each other; for the page Markdown aligns them."""
    lines = [["", "s"], ["cp", "10.00"], ["rsync", "2.00"]]
    assert tables.aligned(lines) == "           s\ncp     10.00\nrsync   2.00"
    assert (
        tables.markdown(lines) == "|  | s |\n| --- | ---: |\n| cp | 10.00 |\n| rsync | 2.00 |"
    )


def test_a_section_tells_what_was_measured_and_what_failed() -> None:
    """Notes and failures are one list; commit, day and machine are named."""
    text = report.section(CASE, result(), "pictures/x.svg")
    assert "- One note.\n- Another.\n- rsync failed 1 of 3 times: CaseError: no route\n" in text
    assert "![how long copies take & why](pictures/x.svg)" in text
    assert "commit abc1234, 2026-01-02; 2 cores" in text


def test_only_what_is_between_the_markers_changes() -> None:
    """The words around the figures are people's; a second time changes nothing."""
    page = f"# Words\n\n{report.BEGIN}\nold\n{report.END}\nmore\n"
    fresh = report.spliced(page, "new")
    assert fresh == f"# Words\n\n{report.BEGIN}\n\nnew\n\n{report.END}\nmore\n"
    assert report.spliced(fresh, "new") == fresh
    with pytest.raises(ValueError, match="no place"):
        report.spliced("# Words\n", "new")


def test_the_page_and_its_pictures_are_drawn(tmp_path: Path) -> None:
    """Cases with results get a section and a picture; those without are left out."""
    page = tmp_path / "page.md"
    (tmp_path / "pictures").mkdir()
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    other = dataclasses.replace(CASE, name="unknown yet")
    report.draw([CASE, other], Results({"copies": result()}), page)
    assert "### copies" in page.read_text()
    assert "unknown" not in page.read_text()
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [
        "performance-copies.svg"
    ]


@pytest.mark.parametrize("case", [CASE, LINES], ids=["bars", "lines"])
def test_a_picture_is_well_formed_and_titled(case: Case) -> None:
    """Words are escaped, and the picture says in words what it shows."""
    root = ElementTree.fromstring(chart.of(case, result()))
    (title,) = (child for child in root if child.tag.endswith("title"))
    assert title.text is not None
    assert title.text.startswith("how long copies take & why: ")


def test_bars_are_as_long_as_their_values() -> None:
    """The longest fills the width, the others have their share; ours has a colour."""
    picture = chart.of(CASE, result())
    bars = re.findall(r'height="22".*?class="(\w+)"|width="([\d.]+)" height="22"', picture)
    assert len(bars) == 3
    widths = [float(width) for width in re.findall(r'width="([\d.]+)" height="22"', picture)]
    assert widths[0] == 480
    assert widths[1] == widths[2] == 2  # so short that the least width shows
    assert picture.count('class="ours"') == 1


def test_equal_steps_are_equal_distances() -> None:
    """On a logarithmic scale ten times as much is always the same way further."""
    scale = chart.Scale([10, 900], 0, 200)
    assert scale.ticks() == [10, 100, 1_000]
    assert [scale(tick) for tick in scale.ticks()] == [0, 100, 200]


def test_numbers_are_short() -> None:
    """Three digits, with letters for thousands and millions."""
    numbers = (0.1234, 12.34, 1_500, 2_000_000)
    assert [chart.short(number) for number in numbers] == ["0.123", "12.3", "1.5 k", "2 M"]


def test_cases_have_names_one_can_type() -> None:
    """No two are alike, and a picture's or a ratio's names are there."""
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        assert re.fullmatch(r"[a-z0-9-]+", case.name)
        subjects = [subject.name for subject in case.subjects]
        titles = [column.title for column in case.columns]
        assert len(set(subjects)) == len(subjects)
        assert len(set(titles)) == len(titles)
        assert set(case.ratio_to) <= set(subjects)
        match case.chart:
            case Lines(_, at, drawn):
                assert set(at) <= set(subjects)
                assert set(drawn) <= set(titles)
            case None:
                pass
            case bars:
                assert bars.title in titles


def test_the_committed_page_shows_the_committed_figures(tmp_path: Path) -> None:
    """After a change of words or figures, `scripts/bench --draw` writes page and pictures."""
    page = tmp_path / PAGE.name
    page.write_text(PAGE.read_text())
    (tmp_path / "pictures").mkdir()
    report.draw(CASES, load(JSON), page)
    assert page.read_text() == PAGE.read_text()
    for picture in (tmp_path / "pictures").iterdir():
        assert picture.read_text() == (PAGE.parent / "pictures" / picture.name).read_text()
