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
    """After it was burned a code is void for good."""
    home.new_code(CODE, 100)
    home.burn_code(CODE)

    with pytest.raises(LookupError):
        home.count_guess(CODE)


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


def test_expired_codes_go(home: Home) -> None:
    """After its time a code is as if it had never been."""
    home.new_code(CODE, 100)
    home.new_code(OTHER, 101)

    home.end_expired(100)

    assert home.count_guess(OTHER) == 1
    with pytest.raises(LookupError):
        home.count_guess(CODE)
