from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from p2psync.store.home import Home
from p2psync.store.index import Index


@pytest.fixture
def path(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "index.db"


@pytest.fixture
def index(path: pathlib.Path) -> Iterator[Index]:
    index = Index.open(path, start=1)
    yield index
    index.close()


@pytest.fixture
def home(tmp_path: pathlib.Path) -> Iterator[Home]:
    home = Home.open(tmp_path / "agent.db")
    yield home
    home.close()
