"""Codes: four words that survive being read out and typed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2psync.protocol import words
from p2psync.protocol.wordlist import WORDS
from p2psync.protocol.words import Code, make_code, parse

NUMBERS = st.lists(st.integers(0, 2047), min_size=4, max_size=4)


def test_the_list_has_2048_words_told_apart_by_four_letters() -> None:
    """Each word has 11 bits, in order, and nobody has to type more than four letters."""
    listed = WORDS.split()
    assert len(listed) == len({word[:4] for word in listed}) == words.WORDS_LISTED
    assert listed == sorted(listed)
    assert all(word.isascii() and word.islower() and 3 <= len(word) <= 8 for word in listed)


@given(NUMBERS)
def test_what_is_made_can_be_typed_again(numbers: list[int]) -> None:
    """In any case, with other separators, and every word cut after four letters."""
    code = make_code(numbers)
    assert parse(str(code)) == code
    assert parse(f"  {str(code).upper().replace('-', '  ')}\n") == code
    assert parse(", ".join(word[:4].title() for word in str(code).split("-"))) == code


def test_a_code_shows_its_slot_and_hides_the_rest() -> None:
    """T42: a code in a log or a crash report gives nothing away."""
    code = make_code([0, 1, 2, 3])
    assert str(code) == "abandon-ability-able-about"
    assert code.password == b"abandon-ability-able-about"
    assert code.slot == "abandon"
    assert repr(code) == "Code(slot='abandon')"


def test_a_slot_seen_nearby_is_avoided() -> None:
    """The next free word takes its place; when all are taken, it is shared."""
    assert make_code([0, 1, 1, 1], avoid=["abandon", "ability"]).slot == "able"
    assert make_code([2047, 1, 1, 1], avoid={"zoo"}).slot == "abandon"
    assert make_code([5, 1, 1, 1], avoid=WORDS.split()).slot == "absent"


@pytest.mark.parametrize(
    "numbers", [[], [1, 2, 3], [1, 2, 3, 4, 5], [0, 0, 0, 2048], [-1, 0, 0, 0]]
)
def test_a_code_takes_four_numbers_of_eleven_bits(numbers: list[int]) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="takes 4 numbers"):
        make_code(numbers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a code has 4 words, not 0"),
        ("able about zoo", "a code has 4 words, not 3"),
        ("able about zoo zoo zoo", "a code has 4 words, not 5"),
        ("able-abuot-zoo-zoo", '"abuot" is not in the word list; did you mean "about"?'),
        (
            "able zoo zoo banananas",
            '"banananas" is not in the word list; did you mean "banana"?',
        ),
        ("able zoo zoo xqxqxq", '"xqxqxq" is not in the word list'),
        ("aba able able able", '"aba" is not in the word list; did you mean "again"?'),
        ("zoo zoo zoo " + "y" * 99, f'"{"y" * 20}" is not in the word list'),
    ],
)
def test_a_mistyped_code_is_explained(text: str, message: str) -> None:
    """The unknown word is named, with the word that was probably meant."""
    with pytest.raises(ValueError, match="word") as caught:
        parse(text)
    assert str(caught.value).startswith(message.split(";")[0])
    if "did you mean" in message and not text.startswith("aba "):
        assert str(caught.value) == message


def test_a_whole_word_wins_over_longer_ones() -> None:
    """`able` and `art` are words although others begin with them."""
    assert parse("act art car man") == Code("act", b"act-art-car-man")


@given(st.text(max_size=60))
def test_t32_whatever_is_typed_is_a_code_or_explained(text: str) -> None:
    """Nothing but ValueError ever comes out."""
    with contextlib.suppress(ValueError):
        assert isinstance(parse(text), Code)
