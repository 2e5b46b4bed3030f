"""Whatever a person can do wrong: the exit code of the contract, and a sentence that helps."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from p2psync.protocol.words import WORDS_LISTED, make_code
from tests.support.hosts import Done, network, pair, wait_until
from tests.support.require import require

pytestmark = pytest.mark.slow

SOME_CODE = str(make_code([1, 2, 3, 4], ()))


def sentence(done: Done) -> str:
    """Return what was said last, which must be for people."""
    said = done.err.strip().splitlines()[-1] if done.err.strip() else ""
    assert said.endswith((".", "?", "again")) or ":" in said, done
    assert "Traceback" not in done.err
    return said


# codes


def test_a_wrong_code_is_refused_and_the_right_one_still_works(tmp_path: Path) -> None:
    """One wrong word: 5 on the accepting side; the code that was put up stays good."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        code, sharing = a.start_share()
        wrong = other_last_word(code)
        assert "code" in sentence(b.run("accept", wrong, b.folder, "--timeout", "8", exit=5))
        assert not b.folder.exists()
        assert not b.status()["folders"]
        b.accept(code)
        assert sharing.end().exit == 0


def other_last_word(code: str) -> str:
    """Return the code with another word at its end."""
    number = 0
    while (other := str(make_code([number] * 4, ())).split("-")[3]) in code.split("-"):
        number += 1
        assert number < WORDS_LISTED
    return "-".join([*code.split("-")[:3], other])


def test_guessing_burns_the_code_and_a_fresh_one_comes(tmp_path: Path) -> None:
    """Five wrong guesses burn a code; share says who guessed and puts up another."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        code, sharing = a.start_share()
        for _ in range(5):
            b.run("accept", other_last_word(code), b.folder, "--timeout", "8", exit=5)
        assert sharing.line("burned")["from"] == [net.lan.address("b")]
        wait_until(lambda: len(sharing.lines("code")) == 2, "a fresh code")
        b.run("accept", code, b.folder, "--timeout", "1", exit=5)
        b.accept(sharing.lines("code")[1]["code"])
        assert sharing.end().exit == 0


def test_a_used_code_is_good_for_nobody(tmp_path: Path) -> None:
    """After one device has joined, the same code is refused to the next: 5."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b", "c") as net:
        a, b, c = net.hosts
        code, sharing = a.start_share()
        b.accept(code)
        assert sharing.end().exit == 0
        sentence(c.run("accept", code, c.folder, "--timeout", "2", exit=5))


def test_a_code_withdrawn_by_ctrl_c_is_good_for_nobody(tmp_path: Path) -> None:
    """Ctrl-C ends share with 130 and withdraws the code; the folder stays ready."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        code, sharing = a.start_share()
        sharing.interrupt()
        assert sharing.end().exit == 130
        b.run("accept", code, b.folder, "--timeout", "2", exit=5)
        assert len(a.status()["folders"]) == 1
        pair(a, b)


def test_an_expired_code_is_good_for_nobody(tmp_path: Path) -> None:
    """When ten minutes have passed, share ends 6 and the code is refused: 5."""
    require("netns", "multicast", "faketime")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        clock = a.base / "clock"
        clock.write_text("+0")
        a.extra = {
            "LD_PRELOAD": faketime_library(),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
        }
        a.start()
        a.extra = {}
        code, sharing = a.start_share()
        clock.write_text("+601")
        done = sharing.end(20)
        assert done.exit == 6
        assert "expired" in done.lines[-1]["error"]
        b.run("accept", code, b.folder, "--timeout", "2", exit=5)
        pair(a, b)


def faketime_library() -> str:
    """Return the library that the `faketime` command loads into programs."""
    show = ["faketime", "1970-01-02 12:00:00", "sh", "-c", "echo $LD_PRELOAD"]
    return subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()


def test_no_one_there(tmp_path: Path) -> None:
    """A code that nobody offers: 5 when the time is over, not much later."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.start()
        b.start()
        began = time.monotonic()
        said = sentence(b.run("accept", SOME_CODE, b.folder, "--timeout", "2", exit=5))
        assert time.monotonic() - began < 6
        assert "share" in said


def test_an_unknown_word_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    """A word that is in no code: 2, no agent started, no packet sent."""
    require("netns", "multicast")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        before = a.sent()
        said = sentence(a.run("accept", "able-xyzzyq-able-able", exit=2))
        assert "xyzzyq" in said
        assert a.pid is None
        assert a.sent() == before


def test_found_but_not_reachable(tmp_path: Path) -> None:
    """The sharing device is seen but hears nothing from the accepting one: 4."""
    require("netns", "multicast", "nft")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        net.lan.separate("a", "b")
        b.start()  # so that it hears what it cannot ask for
        code, sharing = a.start_share()
        said = sentence(b.run("accept", code, b.folder, "--timeout", "10", exit=4))
        assert "firewall" in said
        net.lan.separate("a")
        b.accept(code)
        assert sharing.end().exit == 0


# the agent


def test_commands_without_an_agent(tmp_path: Path) -> None:
    """status says that none runs and stop has nothing to do: 0; the others end with 8."""
    require("netns")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        assert a.status()["agent"] == "stopped"
        a.run("stop")
        for command in (["devices"], ["leave", a.base], ["forget", "ABCDEFG"]):
            assert "p2psync start" in sentence(a.run(*command, exit=8))
        assert a.pid is None


def test_a_killed_agent_is_like_none(tmp_path: Path) -> None:
    """Its socket and lock stay behind, and hinder neither status nor the next start."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        pair(a, b)
        a.kill9()
        assert a.status()["agent"] == "stopped"
        a.run("devices", exit=8)
        a.start()
        wait_until(lambda: a.connected(b), "connected again")


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    """A home on a read-only disk or below a file: 8, and what to do."""
    require("netns", "multicast", "mountns")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        a.folder.mkdir()
        a.extra = {"P2PSYNC_HOME": str(a.home / "config.toml" / "below")}
        assert "--home" in sentence(a.run("share", a.folder, exit=8))
        sealed = a.base / "sealed"
        sealed.mkdir()
        a.extra = {"P2PSYNC_HOME": str(sealed)}
        seal = f'mount -t tmpfs -o ro none {sealed} && exec "$@"'
        a.wrap = ("unshare", "-m", "sh", "-c", seal, "sh")
        assert "--home" in sentence(a.run("share", a.folder, exit=8))


# directories


def test_directories_that_must_not_be_shared(tmp_path: Path) -> None:
    """/, the home directory, the keys, a file, nothing, one inside or around another: 2."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        inner = a.folder / "inner"
        (inner / "deep").mkdir(parents=True)
        (a.folder / "file").write_text("file")
        for path in ("/", a.base, a.home, a.home / "keys", a.folder / "file", a.base / "no"):
            sentence(a.run("share", path, exit=2))
        _, sharing = a.start_share(inner)
        sharing.interrupt()
        sharing.end()
        assert "inside" in sentence(a.run("share", inner / "deep", exit=2))
        assert "around" in sentence(a.run("share", a.folder, exit=2))
        assert [Path(f["path"]) for f in a.status()["folders"]] == [inner]
        code, sharing = b.start_share()
        for path in (inner / "deep", inner / "new", a.folder, "/", a.home / "new"):
            sentence(a.run("accept", code, path, exit=2))
        sentence(a.run("accept", code, inner, exit=2))
        assert not (inner / "new").exists()
        assert sharing.end().exit == 5


@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_root_without_permission(mode: int, tmp_path: Path) -> None:
    """A directory that may not be read or written is refused with 2."""
    require("netns", "multicast", "root")
    with network(tmp_path, "a") as net:
        (a,) = net.hosts
        a.wrap = powerless()
        a.folder.mkdir(mode=mode)
        assert str(a.folder) in sentence(a.run("share", a.folder, exit=2))


def powerless() -> tuple[str, ...]:
    """Return what makes root obey permissions, as everybody else does."""
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


def test_what_cannot_be_read_is_shown_and_clears_itself(tmp_path: Path) -> None:
    """An unreadable file does not stop the others: both commands end 1, status has it."""
    require("netns", "multicast", "root")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.wrap = powerless()
        a.folder.mkdir()
        (a.folder / "open").write_text("open")
        (a.folder / "closed").write_text("closed")
        (a.folder / "closed").chmod(0)
        code, sharing = a.start_share()
        b.accept(code, exit=0)  # b has everything that it knows of
        assert sharing.end().exit == 1
        (folder,) = a.status()["folders"]
        assert folder["state"] == "blocked"
        assert [p["path"] for p in folder["problems"]] == ["closed"]
        assert "cannot be read" in folder["problems"][0]["reason"]
        assert set(b.tree()) == {"open"}
        (a.folder / "closed").chmod(0o644)
        b.until_content("closed", b"closed")
        wait_until(lambda: not a.status()["folders"][0]["problems"], "the problem has gone")


def test_a_root_that_vanishes_deletes_nothing(tmp_path: Path) -> None:
    """With the root moved away the folder is held and says so; back again it goes on."""
    require("netns", "multicast")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        a.folder.mkdir()
        (a.folder / "kept").write_text("kept")
        pair(a, b)
        away = a.base / "away"
        a.folder.rename(away)
        a.run("wait", "--timeout", "5", exit=7)
        assert a.status()["folders"][0]["state"] == "held"
        (b.folder / "meanwhile").write_text("meanwhile")
        assert (b.folder / "kept").exists()
        away.rename(a.folder)
        a.until_content("meanwhile", b"meanwhile", 20)
        a.wait()
        assert a.tree() == b.tree() == {"kept": b"kept", "meanwhile": b"meanwhile"}


def test_no_space_is_shown_and_clears_itself(tmp_path: Path) -> None:
    """A full disk blocks only what does not fit, and status says why until it fits."""
    require("netns", "multicast", "mountns")
    with network(tmp_path, "a", "b") as net:
        a, b = net.hosts
        disk = b.base / "disk"
        b.folder = disk / "folder"
        disk.mkdir()
        mount = f'mount -t tmpfs -o size=20m none {disk} && exec "$@"'
        b.wrap = ("unshare", "-m", "sh", "-c", mount, "sh")
        b.start()
        b.wrap = ()
        inside = Path(f"/proc/{b.pid}/root{b.folder}")
        filler = inside.parent / "filler"
        filler.write_bytes(bytes(16 * 2**20))
        a.folder.mkdir()
        (a.folder / "large").write_bytes(os.urandom(6_000_000))
        (a.folder / "small").write_text("small")
        code, sharing = a.start_share()
        accepted = b.accept(code, exit=1)
        assert "blocked" in accepted.lines[-1]["error"]
        sharing.end()
        (folder,) = b.status()["folders"]
        assert folder["state"] == "blocked"
        assert [p["path"] for p in folder["problems"]] == ["large"]
        assert "no space" in folder["problems"][0]["reason"]
        assert (inside / "small").read_text() == "small"
        (a.folder / "later").write_text("later")
        wait_until((inside / "later").exists, "what fits still arrives")
        filler.unlink()
        b.wait()  # by itself it tries again within half a minute
        assert not b.status()["folders"][0]["problems"]
        assert (inside / "large").read_bytes() == (a.folder / "large").read_bytes()
