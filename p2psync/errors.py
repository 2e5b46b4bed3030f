"""Every exception p2psync raises on purpose, and the exit codes of the command line.

    P2PSyncError
    ├── UserError              a sentence for the person, with the exit code it ends with
    ├── StoreError             the index or the agent's home cannot be trusted or written
    │   └── CorruptIndexError      it is damaged and was put aside: open again, and it is fresh
    ├── RootTrouble            a folder's root cannot be used now: no disk, no marker
    ├── IntegrityError         bytes do not hash to what they were announced as
    ├── ChannelClosedError     the channel is gone; the conversation over it ends
    └── ProtocolError
        ├── RemoteProtocolError    the peer broke the rules: close, log, harm nothing
        └── LocalProtocolError     we did: a bug

Trouble with one path is not an exception but a `core.problem.Problem` value, and what cannot
happen is an `AssertionError`.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command ends with; scripts rely on the numbers."""

    DONE = 0
    CONFLICTS = 1  # finished with conflicts or blocked paths
    USAGE = 2
    SOME_FAILED = 3
    UNREACHABLE = 4  # found but not reachable
    REFUSED = 5  # code or authentication failed
    TIMEOUT = 6
    HELD = 7  # held by a safety brake
    NO_AGENT = 8  # the agent cannot be started or does not answer
    INTERRUPTED = 130


class P2PSyncError(Exception):
    """The root of the tree."""


class UserError(P2PSyncError):
    """This command cannot go on; the text says what to do, in words for a person."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class StoreError(P2PSyncError):
    """The durable state cannot be read, written or trusted."""


class CorruptIndexError(StoreError):
    """A database is damaged: it is, or at the next opening will be, put aside.

    Open it again: it is created afresh, and the replica is in safe mode (design 4.9).
    """


class RootTrouble(P2PSyncError):  # noqa: N818 - a state of the folder, which status shows
    """The root of a replica is missing, foreign or unreadable: nothing in it is a delete.

    `reason` is one of "missing", "not a directory", "no marker", "foreign marker", "replaced",
    "unreadable", "unwritable"; `message` a sentence for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class IntegrityError(P2PSyncError):
    """Bytes do not hash to what they were announced as."""


class ChannelClosedError(P2PSyncError):
    """The channel is gone; `reason` says why, for the log."""

    def __init__(self, reason: str = "closed") -> None:
        super().__init__(reason)
        self.reason = reason


class ProtocolError(P2PSyncError):
    """A rule of the protocol was broken."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule of the protocol; its session ends."""


class LocalProtocolError(ProtocolError):
    """We were about to break a rule of the protocol: a bug of ours."""
