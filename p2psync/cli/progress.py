"""Shows a transfer: a moving bar on a terminal, a plain line every ten seconds elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

from p2psync.cli import text
from p2psync.control.messages import Progress

if TYPE_CHECKING:  # slow to import, and only needed on a terminal
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from p2psync.cli.output import Output

LINE_EVERY_S: Final = 10.0


class Meter:
    """Shows how far it has come; nothing with `--json`, whose lines say it already."""

    def __init__(self, output: Output) -> None:
        """Print where this output goes."""
        self._output = output
        self._last_line = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def show(self, done: Progress) -> None:
        """Show the newest state."""
        if self._output.as_json:
            return
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._move_bar(done)
        elif time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._output.say("  " + text.progress(done))

    def close(self) -> None:
        """Take the bar away, so that lines can follow; the next `show` brings it back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _move_bar(self, done: Progress) -> None:
        if self._bar is None:
            self._bar = _new_bar()
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        assert self._task is not None
        self._bar.update(
            self._task,
            completed=done.bytes,
            total=done.bytes_total or None,
            description=f"{done.files:,}/{text.count(done.files_total, 'file')}",
        )


def _new_bar() -> Bar:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("  {task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
