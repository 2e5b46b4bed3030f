"""Runs a watcher in a process of its own and prints its hints, one JSON object a line.

    python -m tests.support.hints linux|elsewhere DIRECTORY

Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

from p2psync.fs.watch.elsewhere import WatchfilesWatching
from p2psync.fs.watch.linux import LinuxWatching


async def main(by: str, directory: bytes) -> None:
    """Print hints until nobody listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    watching = LinuxWatching() if by == "linux" else WatchfilesWatching()
    watcher = watching.watcher(directory)
    async for hint in watcher.hints(stop):
        paths = sorted(map(os.fsdecode, hint.paths | hint.directories | hint.trees))
        line = {"everything": hint.everything, "paths": paths, "state": watcher.state}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], os.fsencode(sys.argv[2])))
