"""The WebRTC transport: messages over one data channel, DTLS and ICE, without SDP.

The only package that knows aiortc. Import it when it is first needed: it costs 30 MB.
"""

from __future__ import annotations

import logging

from p2psync.net.webrtc.channel import WebRtcChannel
from p2psync.net.webrtc.end import Signal, WebRtcEnd

__all__ = ["Signal", "WebRtcChannel", "WebRtcEnd"]

for _noisy in ("aiortc", "aioice"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)
