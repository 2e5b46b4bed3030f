"""Runs a watcher in a process of its own and prints its hints, one JSON object a line.

    python -m tests.support.hints DIRECTORY

Ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading

from p2psync.fs.watch import Watcher


async def main(directory: bytes) -> None:
    """Print hints until nobody listens."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    watcher = Watcher(directory)
    async for hint in watcher.hints(stop):
        paths = sorted(map(os.fsdecode, hint.paths))
        line = {"everything": hint.everything, "paths": paths, "state": watcher.state}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(os.fsencode(sys.argv[1])))
