"""The log: bounded, private, one line per record."""

from __future__ import annotations

import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.agent import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in logs.OURS:
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_t34_a_record_cannot_forge_another(tmp_path: Path) -> None:
    """Control and direction characters are escapes; each record starts one line."""
    file = tmp_path / "agent.log"
    logs.to_file(file, "info")
    logging.getLogger("p2psync.x").info("peer %s", "a\n2026 INFO forged\x1b[2J\u202e")
    try:
        raise ValueError("bad\x07name")
    except ValueError:
        logging.getLogger("p2psync.x").exception("failed")

    text = file.read_text()
    assert "peer a\\n2026 INFO forged\\x1b[2J\\u202e\n" in text
    assert "ValueError: bad\\x07name" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_the_log_is_bounded_and_private(tmp_path: Path) -> None:
    """It starts anew at its limit, keeps a few old ones, and only the owner reads any."""
    file = tmp_path / "agent.log"
    logs.to_file(file, "info")
    for _ in range(10 * logs.FILE_BYTES // 100_000):
        logging.getLogger("p2psync").info("x" * 100_000)

    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs.FILES_KEPT
    assert sum(one.stat().st_size for one in files) <= (1 + logs.FILES_KEPT) * logs.FILE_BYTES
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}


def test_other_libraries_only_warn(tmp_path: Path) -> None:
    """What others chatter about may hold what our own records leave out."""
    file = tmp_path / "agent.log"
    logs.to_file(file, "debug")
    logging.getLogger("a.library").info("chatter")
    logging.getLogger("a.library").warning("trouble")
    logging.getLogger("p2psync").debug("ours")

    text = file.read_text()
    assert "chatter" not in text
    assert "trouble" in text
    assert "ours" in text


def test_a_name_that_is_not_utf8_can_be_logged(tmp_path: Path) -> None:
    """Lone surrogates, as Python has undecodable names, are escaped."""
    file = tmp_path / "agent.log"
    logs.to_file(file, "info")
    logging.getLogger("p2psync").info("%s", "n\udcff")

    assert "n\\udcff" in file.read_text()
