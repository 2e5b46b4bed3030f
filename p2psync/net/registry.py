"""The transports there are, best first."""

from __future__ import annotations

from typing import Final

TRANSPORTS: Final = {"memory": 0, "tls": 1, "webrtc": 2}
"""Name and rank of every transport; of two channels to one peer the lower rank is better."""
