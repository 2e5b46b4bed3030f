"""Which layers a channel stands on: fast ones of ours, or aiortc's own where it has changed."""

from __future__ import annotations

import functools
import logging
from typing import NamedTuple

from aiortc import RTCDtlsTransport

from p2psync.net.webrtc.sctp import GuardedSctp

log = logging.getLogger(__name__)


class Stack(NamedTuple):
    """The classes of the two upper layers; two ends may have different ones."""

    dtls: type[RTCDtlsTransport]
    sctp: type[GuardedSctp]


PLAIN = Stack(RTCDtlsTransport, GuardedSctp)


@functools.cache
def best() -> Stack:
    """Return the fast layers, or the plain ones when a name the fast ones need has moved."""
    try:
        from p2psync.net.webrtc.fast import FastDtls, FastSctp, missing
    except ImportError as error:
        gone = [str(error)]
    else:
        gone = missing()
        if not gone:
            return Stack(FastDtls, FastSctp)
    log.warning("this aiortc is not one we know, WebRTC will be slow: %s", ", ".join(gone))
    return PLAIN
