"""Pairing codes: four words a person reads out and another one types.

`slot-word-word-word`. All four are the password; the first one is also said openly and only
tells where to look. Three secret words are 33 bits, of which an attacker gets five guesses.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Final

CODE_WORDS: Final = 4
WORDS_LISTED: Final = 2048
_PREFIX: Final = 4  # letters that tell every word from the others


@dataclass(frozen=True)
class Code:
    """A code; only `slot` may be shown to others, and repr shows no more.

    password: all four words, lower case, joined by dashes: what SPAKE2 is given.
    """

    slot: str
    password: bytes = field(repr=False)

    def __str__(self) -> str:
        """Return the code as it is read out and typed."""
        return self.password.decode()


def make_code(numbers: Sequence[int], avoid: Collection[str] = ()) -> Code:
    """Return the code of four random numbers below 2,048.

    avoid: slots in use nearby; the next free word takes their place (if all 2,048 are in use,
    the slot is shared, which costs at most a wrong first try).

    Raises:
        ValueError: there are not four numbers, or one is out of range.
    """
    words = _words()
    if len(numbers) != CODE_WORDS or any(not 0 <= n < len(words) for n in numbers):
        raise ValueError(f"a code takes {CODE_WORDS} numbers below {len(words)}")
    first, *others = numbers
    around = words[first:] + words[:first]
    slot = next((word for word in around if word not in avoid), words[first])
    return _code([slot, *(words[n] for n in others)])


def parse(text: str) -> Code:
    """Read a code as people type it.

    Case does not matter, anything but letters separates, and a word may be cut short after
    four letters.

    Raises:
        ValueError: with a sentence naming what is wrong, and what may have been meant.
    """
    typed = re.findall(r"[a-z]+", text.lower())
    words = [_complete(word) for word in typed[:CODE_WORDS]]
    if len(typed) != CODE_WORDS:
        raise ValueError(f"a code has {CODE_WORDS} words, not {len(typed)}")
    return _code(words)


def _code(words: Sequence[str]) -> Code:
    return Code(words[0], "-".join(words).encode())


def _complete(typed: str) -> str:
    """Return the word of the list that was typed, whole or cut short."""
    words = _words()
    if typed in _numbers():
        return typed
    if len(typed) >= _PREFIX:
        meant = [word for word in words if word.startswith(typed)]
        if len(meant) == 1:
            return meant[0]
    message = f'"{typed[:20]}" is not in the word list'
    close = get_close_matches(typed[:20], words, n=1, cutoff=0.6)
    raise ValueError(f'{message}; did you mean "{close[0]}"?' if close else message)


def number_of(word: str) -> int:
    """Return the place of a word in the list; raise KeyError if it is not there."""
    return _numbers()[word]


def word_of(number: int) -> str:
    """Return the word at a place in the list; raise IndexError if there is none."""
    return _words()[number]


@cache
def _words() -> tuple[str, ...]:
    # Loaded when first asked for: most runs of the program never see a code.
    from p2psync.protocol.wordlist import WORDS

    return tuple(WORDS.split())


@cache
def _numbers() -> dict[str, int]:
    return {word: number for number, word in enumerate(_words())}
