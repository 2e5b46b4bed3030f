"""A transfer on the screen: a bar on a terminal, lines elsewhere, nothing as JSON."""

from __future__ import annotations

import re

import pytest

from p2psync.cli import progress
from p2psync.cli.output import Output
from p2psync.cli.progress import Meter
from p2psync.control.messages import Progress
from p2psync.engine import events
from tests.cli.conftest import Shell
from tests.cli.test_commands import on_terminal
from tests.support.engine import CODE, Engine

HALF = Progress(600, 1_204, 1_500_000_000, 3_100_000_000)


def test_lines_come_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not sooner, and with numbers instead of a percentage."""
    now = [100.0]
    monkeypatch.setattr("p2psync.cli.progress.time.monotonic", lambda: now[0])
    meter = Meter(Output(as_json=False))
    for second in range(25):
        now[0] = 100.0 + second
        meter.show(HALF)
    meter.close()

    line = "  600 of 1,204 files, 1.5 GB of 3.1 GB\n"
    assert progress.LINE_EVERY_S == 10
    assert capsys.readouterr().err == line * 2


def test_as_json_the_meter_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    """The events say it."""
    meter = Meter(Output(as_json=True))
    meter.show(HALF)

    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_a_bar(
    shell: Shell, engine: Engine, monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    """It names files and sizes, goes away at the end, and has no colours with NO_COLOR."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    engine.accepted.insert(1, events.Progress(600, 1_204, 1_500_000_000, 3_100_000_000))

    seen, exit_code = on_terminal(shell, ["accept", "-y", CODE], {})

    assert exit_code == 0
    assert "600/1,204 files" in seen
    assert "1.5/3.1 GB" in seen
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", seen)) is not bool(no_color)


def test_a_dumb_terminal_gets_no_bar(
    shell: Shell, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing moves where nothing can move."""
    monkeypatch.setenv("TERM", "dumb")
    engine.accepted.insert(1, events.Progress(1, 2, 3, 4))

    seen, _ = on_terminal(shell, ["accept", "-y", CODE], {})

    assert "\x1b[" not in seen
