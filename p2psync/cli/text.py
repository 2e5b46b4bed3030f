"""Sizes, times and tables in words, and what `status` and `devices` say: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from p2psync.cli.output import printable
from p2psync.control.messages import Device, FolderInfo, Offer, PeerInfo, Progress, Status

UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
SHOWN: Final = 10  # of a list of conflicts or blocked paths
SHORT_ID: Final = 7
MERGE: Final = (
    "Both versions are there: keep what you want under the plain name, then delete the copy."
)


def size(size_bytes: float) -> str:
    """Return a size in decimal units, as disks are sold: `3.1 GB`."""
    if abs(size_bytes) < 1_000:
        return "1 byte" if size_bytes == 1 else f"{size_bytes:.0f} bytes"
    power = 0
    # 999,950 would be printed as 1000.0 kB
    while abs(size_bytes) >= 999.95 and power < len(UNITS) - 1:
        size_bytes /= 1_000
        power += 1
    return f"{size_bytes:.1f} {UNITS[power]}"


def count(number: int, noun: str) -> str:
    """Return a number of things: `1,204 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """Return a time as two units at most: `1 h 02 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    days, hours_left = divmod(hours, 24)
    return f"{days} d {hours_left} h" if days else f"{hours} h {minutes_left:02} min"


def device(name: str, identity: str) -> str:
    """Return how a device is named to a person: its own name, and the start of its id."""
    return f'"{printable(name)}" ({identity[:SHORT_ID]})'


def place(path: bytes, directory: bytes) -> str:
    """Return a path for a person: `./photos` when it is inside the directory he is in."""
    inside = path.startswith(directory.rstrip(b"/") + b"/")
    return printable(b"." + path[len(directory.rstrip(b"/")) :] if inside else path)


def offer(what: Offer) -> str:
    """Say what accepting brings."""
    amount = f"{count(what.files, 'file')}, {size(what.bytes)}"
    so_far = "" if what.complete else " so far, still counting"
    who = device(what.name, what.device)
    return f'{who} shares "{printable(what.folder)}": {amount}{so_far}.'


def progress(done: Progress) -> str:
    """Say how far it has come, without a percentage that could be taken for a promise."""
    return (
        f"{done.files:,} of {count(done.files_total, 'file')}, "
        f"{size(done.bytes)} of {size(done.bytes_total)}"
    )


def status(snapshot: Status) -> str:
    """Return the whole of `p2psync status` for a person."""
    lines = [f"{device(snapshot.name, snapshot.device)}, p2psync {snapshot.version}", ""]
    lines += _folders(snapshot.folders)
    lines += ["", *_peers(snapshot.peers)]
    return "\n".join(lines)


def no_agent() -> str:
    """Return what `p2psync status` says when no agent runs."""
    return "The agent is not running: nothing is synced. Start it with `p2psync start`."


def devices(listed: Iterable[Device]) -> str:
    """Return the paired devices for a person."""
    lines = []
    for one in listed:
        state = "connected" if one.connected else "not connected"
        lines.append(f"{one.device}  {printable(one.name)}  {state}")
        lines += [f"  {printable(root)}" for root in one.folders]
    return "\n".join(lines) or "No device is paired yet. `p2psync share PATH` prints a code."


def _folders(folders: tuple[FolderInfo, ...]) -> Iterator[str]:
    if not folders:
        yield "No folders yet. `p2psync share PATH` shares one, `p2psync accept` takes one."
    width = max((len(printable(folder.path)) for folder in folders), default=0)
    for folder in folders:
        yield f"{printable(folder.path):{width}}  {_state(folder)}"
        yield from _list("  conflict copy: ", map(printable, folder.conflicts))
        if folder.conflicts:
            yield f"  {MERGE}"
        for prefix, blocks in (("  blocked: ", True), ("  left out: ", False)):
            problems = [p for p in folder.problems if p.blocks is blocks]
            shown = (f"{printable(p.path)}: {printable(p.reason)}" for p in problems)
            yield from _list(prefix, shown)


def _state(folder: FolderInfo) -> str:
    blocked = sum(problem.blocks for problem in folder.problems)
    said = folder.state.replace("-", " ")
    if said == "blocked" and blocked:
        said = f"{blocked:,} blocked"
    if folder.need_files or folder.need_bytes:
        said += f", {count(folder.need_files, 'file')} ({size(folder.need_bytes)}) to come"
    if folder.conflicts:
        said += f", {len(folder.conflicts):,} conflict" + "s" * (len(folder.conflicts) > 1)
    if blocked and folder.state != "blocked":
        said += f", {blocked:,} blocked"
    if folder.detail:
        said += f": {printable(folder.detail)}"
    return f"{said}  ({count(folder.files, 'file')}, {size(folder.size_bytes)})"


def _list(prefix: str, items: Iterable[str]) -> Iterator[str]:
    every = list(items)
    yield from (prefix + item for item in every[:SHOWN])
    if len(every) > SHOWN:
        yield f"  and {len(every) - SHOWN:,} more (p2psync status --json lists all)"


def _peers(peers: tuple[PeerInfo, ...]) -> Iterator[str]:
    if not peers:
        yield "No other device yet."
    width = max((len(printable(peer.name)) for peer in peers), default=0)
    for peer in peers:
        yield f"{printable(peer.name):{width}}  {peer.device[:SHORT_ID]}  {_link(peer)}"


def _link(peer: PeerInfo) -> str:
    if peer.transport:
        latency = "" if peer.rtt_ms is None else f", {peer.rtt_ms:.1f} ms"
        said = f"{peer.state} by {peer.transport}, {printable(peer.address)}{latency}"
        if peer.need_files or peer.need_bytes:
            said += f", {count(peer.need_files, 'file')} ({size(peer.need_bytes)}) behind"
        return said
    if peer.last_seen_s is None:
        return f"{peer.state}, not seen yet"
    return f"{peer.state}, last seen {duration(peer.last_seen_s)} ago"
