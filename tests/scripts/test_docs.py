"""What the docs name is there, and what they list is complete."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from p2psync.errors import ExitCode
from p2psync.protocol.messages import MESSAGE_TYPES

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DOCS = CHECKOUT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), CHECKOUT / "README.md"])
ROOMS = "cli agent config engine control store fs net identity protocol core"
NAMED = re.compile(
    rf"`((?:{'|'.join([*ROOMS.split(), 'tests', 'scripts', 'discovery'])})/[\w./]+)`"
)


def _links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the heading (perhaps none) of every link inside the checkout."""
    for target, heading in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", page.read_text()):
        if not target.startswith("http"):
            yield (page.parent / target if target else page), heading


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link leads to a file and heading that exist; every module named exists."""
    for target, heading in _links(page):
        assert target.exists(), target
        assert not heading or heading in _headings(target), heading
    for name in NAMED.findall(page.read_text()):
        assert (CHECKOUT / name).exists() or (CHECKOUT / "p2psync" / name).exists(), name


def test_every_decision_is_in_the_index() -> None:
    """A record that nobody finds is none."""
    index = (DOCS / "README.md").read_text()
    for record in (DOCS / "decisions").glob("*.md"):
        assert f"decisions/{record.name}" in index


@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
def test_every_message_is_described(kind: type) -> None:
    """The protocol's table has each message with its number and its fields in order."""
    number = kind.__struct_config__.tag  # type: ignore[attr-defined]  # a msgspec struct
    table = (DOCS / "protocol.md").read_text()
    (row,) = re.findall(rf"^\| {number} \| `{kind.__name__}` \| ([^|]*)", table, re.MULTILINE)
    told = re.findall(r"\b[a-z_]+\b", re.sub(r"\([^)]*\)|\[.*\]", "", row))
    assert told == list(typing.get_type_hints(kind).keys())


def test_every_exit_code_is_described() -> None:
    """Scripts rely on the numbers, so people must find them."""
    page = (DOCS / "headless.md").read_text()
    for code in ExitCode:
        assert re.search(rf"^\| {code.value} \| ", page, re.MULTILINE), code


def test_the_pictures_can_be_drawn() -> None:
    """Every picture is well-formed and says in words what it shows."""
    for picture in (DOCS / "pictures").glob("*.svg"):
        root = ElementTree.parse(picture).getroot()
        titled = any(child.tag.endswith("title") for child in root)
        assert titled or root.get("aria-label"), picture
