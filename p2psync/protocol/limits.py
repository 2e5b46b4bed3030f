"""Every bound on what a peer can make large, in one place.

Sizes in bytes, times in seconds.
"""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# frames
CONTROL_FRAME: Final = 1 * MIB
DATA_FRAME: Final = 4 * MIB
MESSAGE_BYTES: Final = DATA_FRAME + 64  # of an authenticated channel
UNAUTHENTICATED_BYTES: Final = 4 * KIB

# before a channel is authenticated
AUTH_TIMEOUT_S: Final = 10.0
UNAUTHENTICATED_CHANNELS: Final = 64

# paths
NAME_BYTES: Final = 255
PATH_BYTES: Final = 32 * KIB
PATH_DEPTH: Final = 1_000
LINK_BYTES: Final = 4_095

# the data model
SEQ_AHEAD: Final = 2**32  # a seq further beyond the known one closes the session
SEQ_MAX: Final = 2**63 - 1
FILE_BYTES: Final = 2**62
LIVE_VALUES: Final = 1_000  # of one entry
AUTHORS: Final = 24_576  # of knowledge: two such vectors fit in a control frame
HEIGHT_MAX: Final = 2**53
MTIME_NS: Final = 2**62  # either side of zero

# exchange
PAGE_ENTRIES: Final = 4_096
PAGE_BYTES: Final = 512 * KIB
DIRECTORY_BYTES: Final = 8 * MIB  # of all the paths above those of one page, each once
SMALL_FILE: Final = 128 * KIB  # up to here a file travels whole, many in one message
WHOLE_FILE: Final = 512 * KIB  # and up to here one of which no earlier version is there
ANSWER_BYTES: Final = 256 * KIB  # contents in one message: 25 s at 10 KB/s, then it seems dead
ANSWER_BYTES_MOST: Final = 1 * MIB  # where a message of that size passes in 50 ms
PACK_BYTES: Final = 2 * MIB  # contents asked for at once
PACK_ITEMS: Final = 4_096
CHUNK_BYTES: Final = 3_840 * KIB  # the largest, of the largest files; fits a data frame
CHUNKS_PER_MANIFEST: Final = 24_576
REQUESTS_OPEN: Final = 64  # of one peer
MEMBERS: Final = 256
MEMBER_ROWS: Final = 1_024  # of one folder, superseded ones included
FOLDERS: Final = 1_024
NAME_TEXT: Final = 100  # bytes of a device's or a folder's name

# text for the log
SOFTWARE_TEXT: Final = 64  # characters
REASON_TEXT: Final = 200  # characters

# pairing
CODE_LIFE_S: Final = 600.0
PAIRING_HELLO: Final = 128  # bytes of messages 1 and 2
PAIRING_JOIN: Final = 1 * KIB  # of message 3
PAIRING_WELCOME: Final = 64 * KIB  # of message 4
VERSIONS_OFFERED: Final = 8

# meeting
ENVELOPE_BYTES: Final = 480
CANDIDATES: Final = 16
TAG_BYTES: Final = 6
TAGS: Final = 128

# liveness
PING_AFTER_S: Final = 10.0  # of silence
DEAD_AFTER_S: Final = 25.0
