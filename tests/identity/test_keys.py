"""The key file: private, whole, the same for all who come at once, and never lost."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from p2psync.errors import ExitCode, UserError
from p2psync.identity import keys
from p2psync.identity.keys import (
    KEY_FILE,
    Identity,
    load_or_create,
    new_identity,
    replace,
    verify,
)
from tests.support.protocol import device
from tests.support.require import require


def test_the_first_use_makes_keys_and_later_ones_find_them(tmp_path: Path) -> None:
    """A device keeps its DeviceId over restarts."""
    made = load_or_create(tmp_path / "home" / "p2psync")
    again = load_or_create(tmp_path / "home" / "p2psync")
    assert (made.device, made.key) == (again.device, again.key)
    assert made.device != made.key
    assert os.listdir(tmp_path / "home" / "p2psync") == [KEY_FILE]


def test_t40_file_and_directory_are_private(tmp_path: Path) -> None:
    """0600 and 0700, whatever the umask allows or forbids."""
    for umask in (0o000, 0o077):
        home = tmp_path / f"home-{umask}"
        before = os.umask(umask)
        try:
            load_or_create(home)
        finally:
            os.umask(before)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / KEY_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o601])
def test_t40_a_file_that_others_could_use_is_refused(tmp_path: Path, mode: int) -> None:
    """The message says which command mends it."""
    load_or_create(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(UserError, match="chmod 600") as caught:
        load_or_create(tmp_path)
    assert caught.value.exit_code is ExitCode.NO_AGENT


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_t40_a_directory_that_others_could_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Whoever may rename there could swap the keys."""
    tmp_path.chmod(mode)
    with pytest.raises(UserError, match="chmod 700"):
        load_or_create(tmp_path)


def test_a_directory_that_others_may_only_read_is_fine(tmp_path: Path) -> None:
    """They still cannot read the file."""
    tmp_path.chmod(0o755)
    assert load_or_create(tmp_path).device == load_or_create(tmp_path).device


def test_t40_a_link_is_refused(tmp_path: Path) -> None:
    """The key is a file of its own, not something somewhere else."""
    load_or_create(tmp_path / "one")
    (tmp_path / "two").mkdir(mode=0o700)
    (tmp_path / "two" / KEY_FILE).symlink_to(tmp_path / "one" / KEY_FILE)
    with pytest.raises(UserError):
        load_or_create(tmp_path / "two")


def test_t40_something_that_is_no_file_is_refused(tmp_path: Path) -> None:
    """Neither a directory nor a pipe in its place hangs or confuses anybody."""
    os.mkfifo(tmp_path / KEY_FILE, 0o600)
    with pytest.raises(UserError, match="not a file of this user"):
        load_or_create(tmp_path)


def test_t40_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Even root does not use somebody else's keys."""
    require("root")
    load_or_create(tmp_path)
    os.chown(tmp_path / KEY_FILE, 12345, 12345)
    with pytest.raises(UserError, match="not a file of this user"):
        load_or_create(tmp_path)


def test_t40_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could swap the keys."""
    require("root")
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(UserError, match="another user"):
        load_or_create(tmp_path)


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    """A file where the directory should be: a sentence, not a traceback."""
    (tmp_path / "home").write_text("")
    with pytest.raises(UserError, match="cannot keep this device's key"):
        load_or_create(tmp_path / "home" / "deeper")


BROKEN = [
    pytest.param(b"", id="empty"),
    pytest.param(b'{"version":1,', id="half"),
    pytest.param(b"\xff\xfe", id="no text"),
    pytest.param(b'{"version":1,"ed25519":"AAAA","x25519":"AAAA"}', id="short keys"),
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_damaged_file_is_never_silently_replaced(tmp_path: Path, content: bytes) -> None:
    """A new key would be a new device: the person decides; the file stays as it was."""
    place = tmp_path / KEY_FILE
    place.write_bytes(content)
    place.chmod(0o600)
    with pytest.raises(UserError, match=r"id --new"):
        load_or_create(tmp_path)
    assert place.read_bytes() == content


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """It says what it is."""
    load_or_create(tmp_path)
    place = tmp_path / KEY_FILE
    kept = json.loads(place.read_bytes())
    place.write_text(json.dumps(kept | {"version": 2}))
    with pytest.raises(UserError, match="newer version"):
        load_or_create(tmp_path)


def test_what_a_crash_left_behind_is_not_taken_for_a_key(tmp_path: Path) -> None:
    """A half-written file beside the place is removed, and keys are made as at first use."""
    (tmp_path / f"{KEY_FILE}.0123.new").write_bytes(b'{"version":1,"ed2')
    made = load_or_create(tmp_path)
    assert load_or_create(tmp_path).device == made.device
    assert os.listdir(tmp_path) == [KEY_FILE]


def test_the_loser_of_a_race_takes_the_winners_keys(tmp_path: Path) -> None:
    """Putting a key file in place never replaces one that is there."""
    winner = load_or_create(tmp_path)
    keys._put(tmp_path / KEY_FILE, new_identity())
    assert load_or_create(tmp_path).device == winner.device
    assert os.listdir(tmp_path) == [KEY_FILE]


@pytest.mark.slow
def test_processes_that_start_at_once_get_the_same_keys(tmp_path: Path) -> None:
    """Eight first uses at the same moment make one device."""
    program = (
        "import sys, pathlib; from p2psync.identity.keys import load_or_create; "
        "sys.stdin.readline(); print(load_or_create(pathlib.Path(sys.argv[1])).device)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate(timeout=60)[0] for process in running}
    assert len(said) == 1
    assert os.listdir(tmp_path / "home") == [KEY_FILE]


def test_a_new_key_keeps_the_old_one_aside(tmp_path: Path) -> None:
    """`id --new`: another device from now on; every earlier key file is still there."""
    first = load_or_create(tmp_path)
    second = replace(tmp_path)
    third = replace(tmp_path)
    assert len({first.device, second.device, third.device}) == 3
    assert load_or_create(tmp_path).device == third.device
    assert sorted(os.listdir(tmp_path)) == [KEY_FILE, f"{KEY_FILE}.old-1", f"{KEY_FILE}.old-2"]
    os.replace(tmp_path / f"{KEY_FILE}.old-1", tmp_path / KEY_FILE)
    assert load_or_create(tmp_path).device == first.device


def test_a_new_key_can_be_made_where_there_was_none_or_a_damaged_one(tmp_path: Path) -> None:
    """`id --new` is the way out of damage."""
    replace(tmp_path / "fresh")
    place = tmp_path / "fresh" / KEY_FILE
    place.write_bytes(b"broken")
    made = replace(tmp_path / "fresh")
    assert load_or_create(tmp_path / "fresh").device == made.device
    assert (tmp_path / "fresh" / f"{KEY_FILE}.old-1").read_bytes() == b"broken"


def test_t42_an_identity_shows_no_secret(tmp_path: Path) -> None:
    """Its repr is the start of its name."""
    assert re.fullmatch(r"Identity\([A-Z2-7]{7}\)", repr(new_identity()))


def test_signatures_verify_for_their_label_fields_and_device_only() -> None:
    """Nothing signed for one use, or with fields cut elsewhere, counts for another."""
    ann, bob = device("ann"), device("bob")
    signature = ann.sign(b"use", b"ab", b"c")
    assert verify(ann.device, b"use", signature, b"ab", b"c")
    assert not verify(ann.device, b"other", signature, b"ab", b"c")
    assert not verify(ann.device, b"use", signature, b"a", b"bc")
    assert not verify(ann.device, b"use", signature, b"abc")
    assert not verify(bob.device, b"use", signature, b"ab", b"c")
    assert not verify(ann.device, b"use", b"", b"ab", b"c")
    assert not verify(ann.device, b"use", signature[:-1], b"ab", b"c")


def test_only_the_receiver_unseals() -> None:
    """What is sealed to nobody, or to others, raises ValueError."""
    with pytest.raises(ValueError, match="not sealed"):
        device("ann").unseal(bytes(60), b"")


def test_keys_are_the_ones_that_were_written() -> None:
    """The encoded form is the file's content and holds both secrets."""
    identity = device("ann")
    assert isinstance(identity, Identity)
    kept = json.loads(identity.encoded())
    assert set(kept) == {"version", "ed25519", "x25519"}
