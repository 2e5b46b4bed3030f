"""Guesses are counted before they are compared, and a code works once."""

from __future__ import annotations

import pathlib

import pytest

from p2psync.errors import StoreError
from p2psync.store.home import Home

CODE, OTHER = b"code", b"other"


def test_guesses_are_counted_over_a_restart(tmp_path: pathlib.Path) -> None:
    """Killing the agent does not give a guesser new guesses."""
    home = Home.open(tmp_path / "agent.db")
    home.new_code(CODE, 100)
    home.new_code(OTHER, 100)
    assert [home.count_guess(CODE) for _ in range(3)] == [1, 2, 3]
    home.close()

    home = Home.open(tmp_path / "agent.db")

    assert home.count_guess(CODE) == 4
    assert home.count_guess(OTHER) == 1
    home.close()


def test_burned_code_takes_no_guess(home: Home) -> None:
    """After it was burned a code is void for good, and so is its answer to come."""
    home.new_code(CODE, 100)
    home.burn_code(CODE)

    with pytest.raises(LookupError):
        home.count_guess(CODE)
    with pytest.raises(StoreError):
        home.store_answer(CODE, b"third", b"fourth")


def test_unknown_and_ended_codes_take_no_guess(home: Home) -> None:
    """There is nothing to guess where no code is up."""
    home.new_code(CODE, 100)
    home.end_code(CODE)

    for code in (CODE, OTHER):
        with pytest.raises(LookupError):
            home.count_guess(code)


def test_a_code_id_is_put_up_once(home: Home) -> None:
    """A second code of one id would take over the guesses of the first."""
    home.new_code(CODE, 100)

    with pytest.raises(StoreError):
        home.new_code(CODE, 200)


def test_identical_third_message_gets_the_identical_fourth(home: Home) -> None:
    """A repeated message 3 is answered as before; another one gets nothing."""
    home.new_code(CODE, 100)
    assert home.answer(CODE, b"third") is None
    home.store_answer(CODE, b"third", b"fourth")
    home.store_answer(CODE, b"third", b"fourth")

    assert home.answer(CODE, b"third") == b"fourth"
    assert home.answer(CODE, b"another") is None
    for third, fourth in ((b"another", b"fourth"), (b"third", b"different")):
        with pytest.raises(StoreError, match="used up"):
            home.store_answer(CODE, third, fourth)
    assert home.answer(CODE, b"third") == b"fourth"


def test_expired_codes_go_with_their_answers(home: Home) -> None:
    """After its time a code is as if it had never been."""
    home.new_code(CODE, 100)
    home.new_code(OTHER, 101)
    home.store_answer(CODE, b"third", b"fourth")

    home.end_expired(100)

    assert home.answer(CODE, b"third") is None
    assert home.count_guess(OTHER) == 1
    home.new_code(CODE, 300)
    assert home.answer(CODE, b"third") is None
