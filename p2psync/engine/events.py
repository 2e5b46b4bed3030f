"""What the engine tells those who asked: immutable snapshots without secrets."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from p2psync.core.ids import DeviceId, FolderId
from p2psync.core.problem import Problem
from p2psync.errors import ExitCode


class State(StrEnum):
    """What a replica is doing; the words are part of the command line's contract."""

    SCANNING = "scanning"
    SYNCING = "syncing"
    UP_TO_DATE = "up-to-date"
    WAITING = "waiting"
    HELD = "held"
    BLOCKED = "blocked"


@dataclass(frozen=True)
class CodeReady:
    """A pairing code can be typed on the other device now."""

    code: str
    expires_s: int


@dataclass(frozen=True)
class Burned:
    """A code was guessed wrongly too often and is void; another one follows, up to three."""

    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """What accepting would bring. complete: the sharing side has finished counting.

    When it is asked whether to go on: `target` is where the folder would go, and `occupied`
    says that nobody named that place and it already holds something.
    """

    device: DeviceId
    device_name: str
    folder: FolderId
    folder_name: str
    files: int
    target: bytes = field(default=b"", kw_only=True)  # before a field named like its type
    bytes: int
    complete: bool
    occupied: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class Paired:
    """The other device has joined: both stored each other and spoke over a channel."""

    device: DeviceId
    name: str


@dataclass(frozen=True)
class Progress:
    """How far a replica (or the peer being waited for) has come."""

    files: int
    files_total: int
    bytes: int
    bytes_total: int


@dataclass(frozen=True)
class StateChanged:
    """A replica's state, and its root."""

    state: State
    path: bytes


@dataclass(frozen=True)
class Finished:
    """The last event of a stream: how the command ends. message: for a person; "" if done."""

    exit_code: ExitCode
    message: str = ""


Event = CodeReady | Burned | Offer | Paired | Progress | StateChanged | Finished


@dataclass(frozen=True)
class FolderStatus:
    """One replica, as `status` shows it."""

    path: bytes
    folder: FolderId
    name: str
    state: State
    detail: str  # why it is waiting, held or blocked, in words; "" otherwise
    need_files: int
    need_bytes: int
    files: int
    size_bytes: int
    conflicts: tuple[bytes, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class PeerStatus:
    """One peer, as `status` shows it. transport "" and rtt_ms None when not connected.

    need_files, need_bytes: what it still lacks of the folders shared with it, as last told.
    """

    device: DeviceId
    name: str
    state: str  # "connected", "connecting" or "offline"
    transport: str
    address: str
    rtt_ms: float | None
    last_seen_s: float | None  # seconds ago; None: never
    need_files: int = 0
    need_bytes: int = 0


@dataclass(frozen=True)
class DeviceStatus:
    """One device paired with this one, and the folders it is a member of."""

    device: DeviceId
    name: str
    connected: bool
    folders: tuple[bytes, ...]  # roots on this device


@dataclass(frozen=True)
class Status:
    """Everything `status` shows."""

    device: DeviceId
    name: str
    version: str
    folders: tuple[FolderStatus, ...] = field(default_factory=tuple)
    peers: tuple[PeerStatus, ...] = field(default_factory=tuple)
