"""The names of things: devices, folders, authors, contents.

A `DeviceId` is printed like `MFZWI3D-BONSGYC-…`: base32 in eight groups of seven, each
thirteen characters followed by one check character (Luhn mod 32), so that a mistyped one is
noticed and not looked for.
"""

from __future__ import annotations

import base64
from typing import Final, NewType

ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
DEVICE_ID_BYTES: Final = 32
FOLDER_ID_BYTES: Final = 16
CONTENT_BYTES: Final = 32

Author = NewType("Author", int)
"""The random 64-bit id under which a replica makes changes; new at every start of the agent."""

Dot = tuple[int, int]
"""(author, seq): one local change of one path, numbered by the author that made it."""


def check_character(text: str) -> str:
    """Return the Luhn mod 32 check character of text over `ALPHABET`."""
    total, factor = 0, 1
    for character in text:
        addend = factor * ALPHABET.index(character)
        factor = 3 - factor
        total += addend // 32 + addend % 32
    return ALPHABET[-total % 32]


class DeviceId(bytes):
    """An Ed25519 public key, 32 bytes; `str()` is its printed form with check characters."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> DeviceId:
        """Take the 32 raw bytes; raise ValueError for any other length."""
        if len(raw) != DEVICE_ID_BYTES:
            raise ValueError(f"a device id has {DEVICE_ID_BYTES} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    def __str__(self) -> str:
        """Print with check characters, in groups of seven."""
        plain = base64.b32encode(self).decode().rstrip("=")
        checked = "".join(
            plain[i : i + 13] + check_character(plain[i : i + 13]) for i in range(0, 52, 13)
        )
        return "-".join(checked[i : i + 7] for i in range(0, 56, 7))

    def __repr__(self) -> str:
        return f"DeviceId({self.short})"

    @property
    def short(self) -> str:
        """The first group: enough to tell one's own devices apart, never to trust one."""
        return str(self)[:7]

    @classmethod
    def parse(cls, text: str) -> DeviceId:
        """Read the printed form, in any case, with or without dashes and blanks.

        Raises:
            ValueError: with a sentence that says what is wrong.
        """
        letters = "".join(text.upper().replace("-", " ").split())
        if len(letters) != 56 or any(character not in ALPHABET for character in letters):
            raise ValueError("a device id has 56 letters A-Z and digits 2-7")
        plain = ""
        for i in range(0, 56, 14):
            part, check = letters[i : i + 13], letters[i + 13]
            if check_character(part) != check:
                raise ValueError(f"the device id has a typing error near {letters[i : i + 14]}")
            plain += part
        return cls(base64.b32decode(plain + "===="))


class FolderId(bytes):
    """The random 16 bytes that name a folder on all its devices."""

    __slots__ = ()

    def __new__(cls, raw: bytes) -> FolderId:
        """Take the 16 raw bytes; raise ValueError for any other length."""
        if len(raw) != FOLDER_ID_BYTES:
            raise ValueError(f"a folder id has {FOLDER_ID_BYTES} bytes, not {len(raw)}")
        return super().__new__(cls, raw)

    def __str__(self) -> str:
        """Print as 26 characters of base32 in lower case."""
        return base64.b32encode(self).decode().rstrip("=").lower()

    def __repr__(self) -> str:
        return f"FolderId({self})"

    @classmethod
    def parse(cls, text: str) -> FolderId:
        """Read the printed form; raise ValueError if it is not one."""
        try:
            return cls(base64.b32decode(text.upper() + "======"))
        except ValueError as error:
            raise ValueError("a folder id has 26 letters a-z and digits 2-7") from error
