"""Each command against an agent's socket: what it asks, prints and ends with."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from p2psync.engine.events import Burned, CodeReady, Finished, Paired
from p2psync.errors import ExitCode
from tests.cli.conftest import Shell, check_golden
from tests.support.engine import CODE, PI, Engine


def steady(text: str, shell: Shell) -> str:
    """Take out what differs from run to run."""
    text = text.replace(str(shell.directory), "DIR")
    return re.sub(r"in \d+\.\d s", "in N s", text)


def test_status_for_a_person(shell: Shell, engine: Engine) -> None:
    """Folders, conflicts, what is blocked and why, and peers; on stdout, nothing escapes."""
    done = shell("status")

    assert done.exit == 0
    assert done.err == ""
    assert "\x1b" not in done.out
    check_golden("status.txt", done.out)


def test_status_as_json_is_exactly_one_object(shell: Shell, engine: Engine) -> None:
    """The contract's fields and no others."""
    done = shell("status", "--json")

    (line,) = done.lines
    assert list(line) == ["type", "agent", "device", "version", "folders", "peers"]
    assert line["folders"][1]["path"].encode("utf-8", "surrogateescape") == (
        b"/home/a/n\xffotes\n"
    )
    check_golden("status.json", done.out)


def test_status_without_an_agent_says_so(shell: Shell) -> None:
    """It ends with 0 and makes nothing, not even the home."""
    done = shell("status")

    assert (done.exit, done.err) == (0, "")
    assert "not running" in done.out
    assert not shell.places.home.exists()
    (line,) = shell("--json", "status").lines
    assert line == {
        "type": "status",
        "agent": "stopped",
        "device": None,
        "version": "0.1.0",
        "folders": [],
        "peers": [],
    }


def test_share_for_a_person(shell: Shell, engine: Engine) -> None:
    """The code is alone on stdout; stderr has the command for the other device."""
    (shell.directory / "test1").mkdir()

    done = shell("share", "./test1", "--name", "One")

    assert (done.exit, done.out) == (0, CODE + "\n")
    assert f"p2psync accept {CODE}\n" in done.err
    check_golden("share.txt", steady(done.err, shell))
    assert engine.calls == [("share", bytes(shell.directory / "test1"), "One")]


def test_share_as_json(shell: Shell, engine: Engine) -> None:
    """One object per line, the code first, the result last, nothing on stderr."""
    engine.shared.insert(1, Burned(("192.168.1.66",)))
    engine.shared.insert(2, CodeReady(CODE, 600))

    done = shell("share", "--json", ".")

    assert (done.exit, done.err) == (0, "")
    assert done.lines[0]["type"] == "code"
    check_golden("share.json", done.out)


@pytest.mark.parametrize(
    ("finished", "exit_code"),
    [
        (Finished(ExitCode.CONFLICTS, "Up to date, with 1 conflict."), 1),
        (Finished(ExitCode.REFUSED, "Three codes were guessed at."), 5),
        (Finished(ExitCode.TIMEOUT, "The code expired unused."), 6),
    ],
)
def test_share_ends_as_the_engine_says(
    shell: Shell, engine: Engine, finished: Finished, exit_code: int
) -> None:
    """Exit code and sentence are the engine's."""
    engine.shared[1:] = [finished]

    done = shell("share", ".")

    assert done.exit == exit_code
    assert finished.message in done.err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_leaving_share_early_withdraws_the_code(
    shell: Shell, engine: Engine, name: str
) -> None:
    """Ctrl-C, SIGTERM and a lost terminal end with 130 and say that the folder stays ready."""
    engine.pause_after = CodeReady
    process = shell.popen("share", ".")
    assert process.stdout is not None
    assert process.stdout.readline() == CODE + "\n"

    process.send_signal(signal.Signals[name])
    _, err = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "the folder stays ready" in err
    assert engine.withdrawn.wait(10)


def test_leaving_share_after_a_device_joined_withdraws_nothing(
    shell: Shell, engine: Engine
) -> None:
    """Then syncing goes on, and that is what is said."""
    engine.pause_after = Paired
    process = shell.popen("share", ".", "--json")
    assert process.stdout is not None
    while '"paired"' not in process.stdout.readline():
        pass

    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)

    assert process.returncode == 130
    assert "Syncing goes on" in out


def test_share_survives_losing_its_terminal(shell: Shell, engine: Engine) -> None:
    """When the terminal is gone for good the command ends by itself, the code withdrawn."""
    engine.pause_after = CodeReady
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        shell.argv("share", "."),
        env=shell.environment(),
        cwd=shell.directory,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    seen = b""
    while b"Waiting for it" not in seen:
        seen += os.read(ours, 4096)

    os.close(ours)
    process.wait(timeout=30)

    assert engine.withdrawn.wait(10)


def take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_what_cannot_be_shared_is_refused_before_an_agent_starts(shell: Shell) -> None:
    """A path that is no directory: exit code 2, a sentence, and no agent."""
    (shell.directory / "file").write_text("")

    missing, file = shell("share", "nope"), shell("share", "file")

    assert (missing.exit, file.exit) == (2, 2)
    assert "There is no folder" in missing.err
    assert "only whole folders" in file.err
    assert not shell.places.home.exists()


def test_accept_for_a_person(shell: Shell, engine: Engine) -> None:
    """It says from whom and how much, and goes on without asking where nobody can answer."""
    done = shell("accept", CODE.upper().replace("-", " "))

    assert (done.exit, done.out) == (0, "")
    check_golden("accept.txt", steady(done.err, shell))
    assert engine.calls == [("accept", CODE, None, bytes(shell.directory), 30.0)]


def test_accept_as_json(shell: Shell, engine: Engine) -> None:
    """The offer first and once, the result last."""
    done = shell("accept", CODE, "here", "--json", "--timeout", "5")

    assert (done.exit, done.err) == (0, "")
    check_golden("accept.json", done.out)
    assert engine.calls == [
        ("accept", CODE, bytes(shell.directory / "here"), bytes(shell.directory), 5.0)
    ]


@pytest.mark.parametrize(
    ("args", "environ", "stdin", "path"),
    [
        ((), {"P2PSYNC_CODE": CODE}, "", None),
        (("here",), {"P2PSYNC_CODE": CODE}, "", b"here"),
        (("./here",), {}, CODE + "\n", b"here"),
        ((), {}, CODE + "\n", None),
    ],
    ids=["environment", "environment and path", "path and input", "input"],
)
def test_a_code_need_not_be_an_argument(
    shell: Shell,
    engine: Engine,
    args: tuple[str, ...],
    environ: dict[str, str],
    stdin: str,
    path: bytes | None,
) -> None:
    """It may come from the environment or the input; a lone argument is then the path."""
    done = shell("accept", *args, stdin=stdin, **environ)

    assert done.exit == 0, done.err
    where = None if path is None else bytes(shell.directory) + b"/" + path
    assert engine.calls[0][1:3] == (CODE, where)


def test_accept_asks_on_a_terminal(shell: Shell, engine: Engine) -> None:
    """The code and then the offer are asked for; "no" takes nothing."""
    seen, exit_code = on_terminal(shell, ["accept"], {"Code": CODE + "\n", "[Y/n]": "n\n"})

    assert exit_code == 0
    assert '"pi" (AAAQEAY) shares "photos": 1,204 files, 3.1 GB.' in seen
    assert not engine.withdrawn.is_set()


def test_a_code_may_be_typed_as_it_is_read_out(shell: Shell, engine: Engine) -> None:
    """Four words one by one are the code too, with the path after them."""
    done = shell("accept", *CODE.split("-"), "here")

    assert done.exit == 0, done.err
    assert engine.calls[0][1:3] == (CODE, bytes(shell.directory / "here"))


def test_ctrl_c_at_the_question_says_what_became_of_the_code(
    shell: Shell, engine: Engine
) -> None:
    """On a line of its own: nothing was accepted, and the code is used up."""
    seen, exit_code = on_terminal(shell, ["accept", CODE], {"[Y/n]": "\x04"})

    assert exit_code == 130
    assert seen.endswith("\nNothing was accepted. The code is used up: ask for a new one.\r\n")


def test_accept_yes_does_not_ask(shell: Shell, engine: Engine) -> None:
    """-y is the answer to the only question."""
    seen, exit_code = on_terminal(shell, ["accept", "-y", CODE], {})

    assert exit_code == 0
    assert "Take it" not in seen
    assert "Up to date" in seen


def test_a_default_place_that_holds_files_is_asked_for(shell: Shell, engine: Engine) -> None:
    """On a terminal; where nobody can answer, only -y takes it."""
    (shell.directory / "photos").mkdir()
    seen, exit_code = on_terminal(shell, ["accept", CODE], {"Use it? [y/N]": "y\n"})

    assert exit_code == 0
    assert "nothing is deleted" in seen
    assert "Declined" in shell("accept", CODE).err
    assert "Up to date" in shell("accept", CODE, "-y").err


def on_terminal(shell: Shell, args: list[str], typed: dict[str, str]) -> tuple[str, int]:
    """Run with a terminal; type each text when its prompt shows. Return (screen, exit code)."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        shell.argv(*args),
        env=shell.environment(),
        cwd=shell.directory,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen, left = "", dict(typed)
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        seen += part.decode()
        for prompt in [prompt for prompt in left if prompt in seen]:
            os.write(ours, left.pop(prompt).encode())
    os.close(ours)
    return seen, process.wait(timeout=30)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("zebra-appel-river-stone", 'did you mean "apple"?'),
        ("zebra-apple-river", "a code has 4 words, not 3"),
    ],
)
def test_a_word_that_is_none_is_named(shell: Shell, code: str, said: str) -> None:
    """Exit code 2 with a suggestion; no agent is started, nothing is sent."""
    done = shell("accept", code)

    assert done.exit == 2
    assert said in done.err
    assert not shell.places.home.exists()


def test_json_never_asks(shell: Shell) -> None:
    """Without a code there is a result instead of a prompt."""
    done = shell("accept", "--json", stdin=CODE + "\n")

    assert done.exit == 2
    assert done.lines[-1]["type"] == "result"


def test_wait_says_what_it_waited_for(shell: Shell, engine: Engine) -> None:
    """Path and timeout are handed on, the exit code comes back."""
    done = shell("wait", ".", "--timeout", "1")

    assert done.exit == 6
    assert done.err == "Error: Not in sync after 1 s.\n"
    assert engine.calls == [("wait", bytes(shell.directory), 1.0)]


def test_devices(shell: Shell, engine: Engine) -> None:
    """Full ids with names and folders; as JSON an object each."""
    check_golden("devices.txt", shell("devices").out)
    check_golden("devices.json", shell("devices", "--json").out)


def test_leave(shell: Shell, engine: Engine) -> None:
    """The path is made absolute; a refusal is the engine's sentence."""
    assert shell("leave", "x", "--purge").exit == 0
    refused = shell("leave", "none")

    assert (refused.exit, refused.err) == (2, "Error: This folder is not shared.\n")
    assert engine.calls[0] == ("leave", bytes(shell.directory / "x"), True)


def test_forget_prints_whom(shell: Shell, engine: Engine) -> None:
    """The full id of who was cut off."""
    done = shell("forget", "AAAQEAY", "--folder", "x", "--json")

    assert done.lines == [
        {"type": "forgotten", "device": str(PI)},
        {"type": "result", "exit": 0, "error": None},
    ]
    assert engine.calls == [("forget", "AAAQEAY", bytes(shell.directory / "x"))]


@pytest.mark.parametrize("args", [("devices",), ("leave", "x"), ("forget", "AAAQEAY")])
def test_commands_that_need_an_agent_say_how_to_start_one(
    shell: Shell, args: tuple[str, ...]
) -> None:
    """Exit code 8, and nothing is started."""
    done = shell(*args)

    assert done.exit == 8
    assert "p2psync start" in done.err
    assert not shell.places.home.exists()


def test_id_is_the_same_until_a_new_one_is_asked_for(shell: Shell) -> None:
    """It works without an agent; --new makes another device of this one."""
    first, again = shell("id"), shell("id")
    new = shell("id", "--new")

    assert first.exit == 0
    assert re.fullmatch(r"([A-Z2-7]{7}-){7}[A-Z2-7]{7}\n", first.out)
    assert again.out == first.out
    assert new.out != first.out
    assert shell("id", "--json").lines[0] == {"type": "id", "device": new.out.strip()}


def test_names_never_act_on_the_terminal(shell: Shell, engine: Engine) -> None:
    """t34: control and direction characters of names are shown as escapes."""
    engine.shared[1] = Paired(PI, "\x1b]0;x\x07\u202e")

    done = shell("share", ".")

    assert "\\x1b]0;x\\x07\\u202e" in done.err
    assert "\x1b" not in done.err + done.out


def test_output_without_unicode_is_escaped(shell: Shell, engine: Engine) -> None:
    """A system without UTF-8 gets escapes, never a traceback."""
    engine.shared[1] = Paired(PI, "Küche")

    done = shell("share", ".", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert done.exit == 0
    assert "K\\xfcche" in done.err


def test_a_reader_that_has_had_enough_is_no_error(shell: Shell, engine: Engine) -> None:
    """`p2psync status | head -1` prints no traceback."""
    done = subprocess.run(
        ["sh", "-c", '"$@" 2>err | true', "sh", *shell.argv("status")],
        env=shell.environment(),
        cwd=shell.directory,
        check=False,
    )

    assert done.returncode == 0
    assert (shell.directory / "err").read_text() == ""


def test_home_is_said_anywhere(shell: Shell, engine: Engine, tmp_path: Path) -> None:
    """--home before or after the command beats the environment."""
    for args in (("--home", "other", "status"), ("status", "--home", "other")):
        assert "not running" in shell(*args).out
