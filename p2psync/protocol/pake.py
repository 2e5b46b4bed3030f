"""The password-authenticated exchange of pairing: SPAKE2, and the keys that come of it.

SPAKE2 gives both sides the same secret if they used the same password, and different ones, not
an error, if they did not. Every key is derived with the transcript hash th as salt and a label
of its own, so that two sides that saw different messages have different keys as well.

The arithmetic is pure Python and not constant-time: some milliseconds of a code that lives ten
minutes and is used once.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from p2psync.errors import LocalProtocolError, RemoteProtocolError
from p2psync.protocol.signing import label, statement

SPAKE_BYTES: Final = 33
SEED_BYTES: Final = 32
MAC_BYTES: Final = 32
SEAL_BYTES: Final = 16  # what sealing adds
_ONCE: Final = bytes(12)  # the nonce of a key that seals once
_ACCEPTING: Final = b"p2psync accepting"
_SHARING: Final = b"p2psync sharing"


class Exchange:
    """One side of one SPAKE2 exchange; a seed must never serve twice."""

    def __init__(self, password: bytes, seed: bytes, *, sharing: bool) -> None:
        """Make ready. seed: 32 fresh random bytes."""
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"a seed has {SEED_BYTES} bytes")
        # no type hints; imported by who pairs: 0.7 MB that an idle agent does without
        import spake2  # type: ignore[import-untyped]

        side = spake2.SPAKE2_B if sharing else spake2.SPAKE2_A
        self._spake = side(password, _ACCEPTING, _SHARING, entropy_f=_entropy(seed))

    def start(self) -> bytes:
        """Return the 33 bytes for the other side; called once."""
        return cast("bytes", self._spake.start())

    def finish(self, theirs: bytes) -> bytes:
        """Return the 32-byte secret; called once.

        Raises:
            RemoteProtocolError: these are no bytes that an honest side sends.
        """
        from spake2 import SPAKEError
        from spake2.ed25519_basic import NotOnCurve  # type: ignore[import-untyped]

        try:
            return cast("bytes", self._spake.finish(theirs))
        except (SPAKEError, NotOnCurve, ValueError) as error:
            raise RemoteProtocolError("not a point of the curve") from error


class Keys:
    """What both sides derive from the SPAKE2 secret; each key is used once."""

    def __init__(self, secret: bytes, transcript: bytes) -> None:
        self._secret = secret
        self._transcript = transcript

    def confirmation(self) -> bytes:
        """Return the HMAC by which the accepting side confirms."""
        return hmac.digest(self._key(b"confirm"), self._transcript, "sha256")

    def seal(self, use: bytes, plain: bytes, *context: bytes) -> bytes:
        """Seal what is sent once under this use."""
        return ChaCha20Poly1305(self._key(use)).encrypt(_ONCE, plain, self._about(context))

    def open(self, use: bytes, sealed: bytes, *context: bytes) -> bytes | None:
        """Open it; None if the other side has other keys or another transcript."""
        cipher = ChaCha20Poly1305(self._key(use))
        try:
            return cipher.decrypt(_ONCE, sealed, self._about(context))
        except InvalidTag:
            return None

    def _about(self, context: tuple[bytes, ...]) -> bytes:
        return statement(b"pairing seal", self._transcript, *context)

    def _key(self, use: bytes) -> bytes:
        info = label(b"pairing " + use)
        return HKDF(SHA256(), 32, self._transcript, info).derive(self._secret)


def transcript_of(start: bytes, answer: bytes) -> bytes:
    """Return th: it covers versions offered and chosen, slot, X and Y, and only them."""
    return hashlib.sha256(statement(b"pairing", start, answer)).digest()


def _entropy(seed: bytes) -> Callable[[int], bytes]:
    """Return a source of random bytes that is a pure function of the seed."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        stream = statement(b"pairing scalar", seed, drawn.to_bytes(4, "big"))
        return hashlib.shake_256(stream).digest(count)

    return draw
