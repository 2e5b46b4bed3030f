"""What the command line may ask the agent, and what it answers.

A conversation is one request, answered by `Started` at once and then by any number of replies,
of which `Result` is the last. Hanging up ends the work the request started. While accepting,
`Question` is answered by `Answer`. Paths are bytes, as the disk has them.

The replies named like lines of `--json` (`code`, `paired`, …) are exactly those lines.
"""

from __future__ import annotations

from typing import Final

import msgspec

REQUEST_BYTES: Final = 64 * 1024
REPLY_BYTES: Final = 64 * 1024 * 1024  # a status with every conflict of a large folder


class _Message(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower):
    """Tagged with the class's name in lower case."""


# requests


class Ping(_Message, frozen=True):
    """Does the agent answer? Only `Result` comes back."""


class Stop(_Message, frozen=True):
    """End the agent; `Result` comes before it has gone."""


class Share(_Message, frozen=True):
    """Share the directory (absolute) and put up a code. name: None for the directory's own."""

    path: bytes
    name: str | None = None


class Accept(_Message, frozen=True):
    """Join the folder the code is for. path: None for the folder's name inside `directory`."""

    code: str
    path: bytes | None
    directory: bytes
    timeout_s: float


class Wait(_Message, frozen=True):
    """Wait until the replica at path (None: all) is in sync. timeout_s: None for ever."""

    path: bytes | None = None
    timeout_s: float | None = None


class GetStatus(_Message, frozen=True):
    """Answered by one `Status`."""


class GetDevices(_Message, frozen=True):
    """Answered by a `Device` each."""


class Leave(_Message, frozen=True):
    """Stop syncing the replica at path. purge: remove its `.p2psync/` as well."""

    path: bytes
    purge: bool = False


class Forget(_Message, frozen=True):
    """Revoke a device (its id or the first groups of it), for one replica or (None) for all."""

    device: str
    path: bytes | None = None


class Answer(_Message, frozen=True):
    """The person's answer to a `Question`."""

    yes: bool


Request = Ping | Stop | Share | Accept | Wait | GetStatus | GetDevices | Leave | Forget | Answer


# replies


class Started(_Message, frozen=True):
    """The request was understood and is being worked on. version: the agent's."""

    version: str


class Code(_Message, frozen=True):
    """A code that can be typed on the other device now."""

    code: str
    expires_s: int


class Burned(_Message, frozen=True):
    """The code was guessed at too often, from these addresses, and is void."""

    addresses: tuple[str, ...] = msgspec.field(name="from")


class Offer(_Message, frozen=True):
    """What accepting brings. complete: False while the other side still counts."""

    device: str
    name: str
    folder: str
    files: int
    bytes: int
    complete: bool


class Question(_Message, frozen=True):
    """Take this offer, into path? Nothing goes on before the `Answer`.

    occupied: nobody named path, and it already holds something.
    """

    offer: Offer
    path: bytes = b""
    occupied: bool = False


class Paired(_Message, frozen=True):
    """The other device has joined."""

    device: str
    name: str


class Progress(_Message, frozen=True):
    """How far the transfer has come."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int


class State(_Message, frozen=True):
    """A replica's state (a word of the command line's contract) and its root."""

    state: str
    path: bytes


class ProblemInfo(msgspec.Struct, frozen=True):
    """One path that cannot be synced now, and why in words.

    blocks: False for what could never be synced and is only mentioned.
    """

    path: bytes
    reason: str
    blocks: bool = True


class FolderInfo(msgspec.Struct, frozen=True):
    """One replica. detail: why it waits, is held or blocked, in words; else empty."""

    path: bytes
    id: str
    name: str
    state: str
    detail: str
    need_files: int
    need_bytes: int
    files: int
    size_bytes: int
    conflicts: tuple[bytes, ...] = ()
    problems: tuple[ProblemInfo, ...] = ()


class PeerInfo(msgspec.Struct, frozen=True):
    """One peer. transport and address are empty and rtt_ms None while not connected.

    need_files, need_bytes: what it still lacks.
    """

    device: str
    name: str
    state: str
    transport: str
    address: str
    rtt_ms: float | None
    last_seen_s: float | None
    need_files: int = 0
    need_bytes: int = 0


class Status(_Message, frozen=True):
    """Everything `p2psync status` shows."""

    device: str
    name: str
    version: str
    folders: tuple[FolderInfo, ...] = ()
    peers: tuple[PeerInfo, ...] = ()


class Device(_Message, frozen=True):
    """One device paired with this one; folders: the roots, here, of what it is a member of."""

    device: str
    name: str
    connected: bool
    folders: tuple[bytes, ...] = ()


class Forgotten(_Message, frozen=True):
    """The full id of the device that was revoked."""

    device: str


class Result(_Message, frozen=True):
    """The end: the command's exit code, and a sentence unless all is well."""

    exit: int
    error: str | None = None


Event = Code | Burned | Offer | Paired | Progress | State | Status | Device | Forgotten
Reply = Started | Question | Event | Result
