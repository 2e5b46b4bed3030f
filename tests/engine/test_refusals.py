"""What must not become the root of a replica, and the sentence that says why (T20, P12)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from p2psync.engine import refusals
from p2psync.engine.refusals import check_directory, check_place
from p2psync.errors import ExitCode, UserError


def test_t20_too_much_to_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the root of the system nor a home directory as a whole is shared."""
    own = tmp_path / "ann"
    own.mkdir()
    monkeypatch.setattr(refusals, "own_home", lambda: os.fsencode(own))
    for root in (b"/", os.fsencode(own)):
        with pytest.raises(UserError, match="too much") as refused:
            check_place(root, [], b"/nowhere/else")
        assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("place", ["", "keys", "keys/deep"])
def test_m10_the_agents_home_is_never_shared(tmp_path: Path, place: str) -> None:
    """The keys must not travel: neither a directory around the home nor one inside it."""
    home = tmp_path / "keys"
    (home / "deep").mkdir(parents=True)
    with pytest.raises(UserError, match="keys"):
        check_place(os.fsencode(tmp_path / place), [], os.fsencode(home))


@pytest.mark.parametrize("place", ["photos/2026", "."])
def test_p12_folders_are_not_shared_inside_or_around_each_other(
    tmp_path: Path, place: str
) -> None:
    """Two replicas never own one file."""
    shared = os.fsencode(tmp_path / "photos")
    (tmp_path / "photos/2026").mkdir(parents=True)
    with pytest.raises(UserError, match="shared already"):
        check_place(os.path.realpath(os.fsencode(tmp_path / place)), [shared], b"/nowhere")


def test_beside_each_other_is_fine(tmp_path: Path) -> None:
    """A name that only begins alike is another place."""
    check_place(os.fsencode(tmp_path / "photos2"), [os.fsencode(tmp_path / "photos")], b"/x")


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file, and what is not there, with a sentence that says what to do."""
    (tmp_path / "file").write_text("")
    for name, why in (("file", "not a directory"), ("none", "does not exist")):
        with pytest.raises(UserError, match=why):
            check_directory(os.fsencode(tmp_path / name))
