"""fs.scan: every change is found, nothing is missing without evidence, no link is followed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2psync.core.ignore import NOTHING, Rules
from p2psync.core.observed import Observed
from p2psync.core.problem import Problem, Reason
from p2psync.fs.ground import Ground
from p2psync.fs.hashing import observe
from p2psync.fs.root import Root
from p2psync.fs.scan import (
    DirectoryScan,
    confirm_missing,
    load_rules,
    scan_directory,
    scan_tree,
)
from tests.support import looking
from tests.support.looking import Seen, changed, missing, problems, unprivileged
from tests.support.require import require

folder = looking.folder
root = looking.root

REPOSITORY = Path(__file__).parents[2]


def fill(folder: Path) -> None:
    """A small tree: two files, a link, a directory in a directory."""
    (folder / "a").write_bytes(b"a")
    (folder / "d" / "e").mkdir(parents=True)
    (folder / "d" / "b").write_bytes(b"b")
    (folder / "d" / "e" / "c").write_bytes(b"c")
    (folder / "link").symlink_to("d")


def test_everything_is_new_at_first(root: Root, folder: Path) -> None:
    """All but our own directory is found; parents come before children; links are leaves."""
    fill(folder)
    found = changed(scan_tree(root, b"", lambda _: {}, NOTHING))
    assert sorted(found) == [b"a", b"d", b"d/b", b"d/e", b"d/e/c", b"link"]
    assert all(found.index(path.rpartition(b"/")[0]) < found.index(path) for path in found[3:])


def test_nothing_is_new_the_second_time(root: Root, folder: Path) -> None:
    """A tree that stayed as it was needs no look, and nothing is missing."""
    fill(folder)
    scans = Seen(root).scan()
    assert (changed(scans), missing(scans), problems(scans)) == ([], [], [])
    assert all(scan.complete for scan in scans)
    assert [scan.ignored for scan in scans] == [[b".p2psync"], [], []]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param((b"one", 5), (b"two", 5), id="a05-same-size-and-mtime"),
        pytest.param((b"one", 5), (b"other", 1), id="a06-an-older-mtime"),
        pytest.param((b"one", 5), (b"one", 7), id="a16-touched"),
        pytest.param((b"one", 5), (b"one", -5), id="k07-before-1970"),
    ],
)
def test_an_edit_is_found(
    root: Root, folder: Path, old: tuple[bytes, int], new: tuple[bytes, int]
) -> None:
    """An edit is found by ctime whatever it does to size and mtime."""

    def write(content: bytes, mtime_s: int) -> None:
        (folder / "x").write_bytes(content)
        os.utime(folder / "x", (mtime_s, mtime_s))

    write(*old)
    seen = Seen(root)
    write(*new)
    assert changed(seen.scan()) == [b"x"]


def test_a05_a_replaced_file_is_found(root: Root, folder: Path) -> None:
    """Another file with the same size and mtime under the same name is found."""
    (folder / "x").write_bytes(b"one")
    os.utime(folder / "x", (5, 5))
    seen = Seen(root)
    (folder / "new").write_bytes(b"two")
    os.utime(folder / "new", (5, 5))
    (folder / "new").replace(folder / "x")
    assert changed(seen.scan()) == [b"x"]


def test_a_missing_tree(root: Root, folder: Path) -> None:
    """Of a directory that is gone its name is missing; scanned by itself, its children are."""
    fill(folder)
    seen = Seen(root)
    shutil.rmtree(folder / "d")
    assert missing(seen.scan()) == [b"d"]
    assert missing(seen.scan(start=b"d")) == [b"d/b", b"d/e"]
    assert missing(seen.scan(start=b"d/e")) == [b"d/e/c"]
    gone = [b"d", b"d/b", b"d/e", b"d/e/c"]
    assert confirm_missing(root, [b"a", *gone]) == gone


def test_a_directory_that_became_something_else(root: Root, folder: Path) -> None:
    """What stood below it is missing, though a look through a link would find it."""
    fill(folder)
    (folder / "elsewhere").mkdir()
    seen = Seen(root)
    (folder / "d").rename(folder.parent / "outside")
    (folder / "d").symlink_to(folder.parent / "outside")
    (folder / "elsewhere").rmdir()
    (folder / "elsewhere").touch()
    scan = seen.scan()[0]
    assert sorted(scan.replaced) == [b"d", b"elsewhere"]
    assert sorted(scan.changed) == [b"d", b"elsewhere"]
    assert missing(seen.scan(start=b"d")) == [b"d/b", b"d/e"]
    assert confirm_missing(root, [b"d", b"d/b", b"d/e/c"]) == [b"d/b", b"d/e/c"]


def test_b07_what_came_back_is_not_missing(root: Root, folder: Path) -> None:
    """A file that was away during the pass and stands there again is not gone."""
    fill(folder)
    seen = Seen(root)
    (folder / "a").rename(folder / "moved")
    (folder / "d" / "b").unlink()
    suspects = missing(seen.scan())
    assert suspects == [b"a", b"d/b"]
    (folder / "moved").rename(folder / "a")
    assert confirm_missing(root, suspects) == [b"d/b"]
    assert confirm_missing(root, [b""]) == []


def test_b07_a_name_that_goes_while_it_is_listed(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that vanishes between the listing and the look is missing if it had a row."""
    fill(folder)
    seen = Seen(root)
    (folder / "new").touch()
    (folder / "d" / "e").rename(folder / "d" / "E")
    real = os.scandir

    class Listing:
        """A listing during which everything is deleted."""

        def __init__(self, fd: int) -> None:
            with real(fd) as entries:
                self.names = list(entries)

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            for name in ("a", "new"):
                (folder / name).unlink()
            return iter(self.names)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Listing)
    scan = scan_directory(root, b"", seen.children(b""), NOTHING)
    assert (scan.changed, scan.missing, scan.complete) == ([], [b"a"], True)


def test_i02_an_unreadable_directory(root: Root, folder: Path) -> None:
    """Nothing below it is missing, it is a problem, and the others are scanned."""
    folder.chmod(0o755)
    fill(folder)
    seen = Seen(root)
    (folder / "a").unlink()
    (folder / "d").chmod(0)
    with unprivileged():
        scans = seen.scan()
        assert missing(scans) == [b"a"]
        assert [(it.path, it.reason) for it in problems(scans)] == [(b"d", Reason.UNREADABLE)]
        assert [scan.complete for scan in scans] == [True, False]
        assert confirm_missing(root, [b"a", b"d/b", b"d/e/c"]) == [b"a"]


def test_i02_a_directory_that_may_only_be_listed(root: Root, folder: Path) -> None:
    """Names without looks at them are no evidence of anything."""
    folder.chmod(0o755)
    fill(folder)
    seen = Seen(root)
    (folder / "d" / "b").unlink()
    (folder / "d").chmod(0o744)
    with unprivileged():
        scans = seen.scan()
        assert missing(scans) == []
        assert [it.path for it in problems(scans)] == [b"d"]
        assert not scans[1].complete
        assert confirm_missing(root, [b"d/b"]) == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_j06_a_listing_that_breaks_off(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What a broken listing did not name is not missing, and what it named is still found."""
    fill(folder)
    seen = Seen(root)
    (folder / "a").write_bytes(b"changed")
    real = os.scandir

    class Listing:
        """A listing that names one file and then fails."""

        def __init__(self, fd: int) -> None:
            with real(fd) as entries:
                self.entries = [entry for entry in entries if entry.name == "a"]

        def __enter__(self) -> Iterator[os.DirEntry[str]]:
            yield from self.entries
            raise OSError(number, os.strerror(number))

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Listing)
    scan = scan_directory(root, b"", seen.children(b""), NOTHING)
    assert (scan.changed, scan.missing, scan.complete) == ([b"a"], [], False)
    assert [it.reason for it in scan.problems] == [Reason.IO_ERROR]


def test_i12_one_bad_inode(root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is listed and cannot be looked at is a problem and not missing."""
    fill(folder)
    seen = Seen(root)
    (folder / "d" / "b").unlink()
    real = os.scandir

    class Entry:
        """A child whose inode is on a bad sector."""

        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.entry = entry
            self.name = entry.name

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return self.entry.is_dir(follow_symlinks=follow_symlinks)

        def stat(self, *, follow_symlinks: bool) -> os.stat_result:
            if self.name == "a":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return self.entry.stat(follow_symlinks=follow_symlinks)

    class Listing:
        """A listing of such children."""

        def __init__(self, fd: int) -> None:
            with real(fd) as entries:
                self.entries = [Entry(entry) for entry in entries]

        def __enter__(self) -> Iterator[Entry]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Listing)
    scans = seen.scan()
    assert [(it.path, it.reason) for it in problems(scans)] == [(b"a", Reason.IO_ERROR)]
    assert missing(scans) == [b"d/b"]
    assert all(scan.complete for scan in scans)


def test_j02_a_root_that_is_gone_has_nothing_missing(root: Root, folder: Path) -> None:
    """A root that was deleted under us is a failed listing."""
    fill(folder)
    seen = Seen(root)
    shutil.rmtree(folder)
    scans = seen.scan()
    assert missing(scans) == []
    assert not scans[0].complete
    assert confirm_missing(root, [b"a", b"d/b"]) == []


def test_h11_special_files_do_not_stop_the_walk(root: Root, folder: Path) -> None:
    """A fifo is listed for a look, which says what it is; a file it replaced is not missing."""
    fill(folder)
    seen = Seen(root)
    (folder / "a").unlink()
    os.mkfifo(folder / "a")
    scans = seen.scan()
    assert (changed(scans), missing(scans)) == ([b"a"], [])
    assert observe(root, b"a") == Problem(b"a", Reason.SPECIAL)


def test_h03_links_in_a_circle(root: Root, folder: Path) -> None:
    """Links to directories, even to the one they are in, are leaves."""
    (folder / "a").mkdir()
    (folder / "a" / "up").symlink_to("..")
    (folder / "self").symlink_to(".")
    scans = list(scan_tree(root, b"", lambda _: {}, NOTHING))
    assert sorted(changed(scans)) == [b"a", b"a/up", b"self"]
    assert scan_directory(root, b"self", {}, NOTHING) == DirectoryScan(b"self")


def test_h13_another_filesystem_is_not_ours() -> None:
    """A mount point below the root is a problem; nothing in it is listed or missing."""
    ground = Ground(b"/", os.open("/", os.O_RDONLY | os.O_DIRECTORY))
    try:
        scan = scan_directory(ground, b"", {}, NOTHING)
        assert Problem(b"proc", Reason.MOUNTED) in scan.problems
        assert b"proc" not in scan.changed + scan.subdirectories
        inside = scan_directory(ground, b"proc", {}, NOTHING)
        assert inside == DirectoryScan(
            b"proc", problems=[Problem(b"proc", Reason.MOUNTED)], complete=False
        )
        gone = [b"proc/none", b"proc/none/x", b"proc/self/none", b"none-such"]
        assert confirm_missing(ground, gone) == [b"none-such"]
    finally:
        os.close(ground.fd)


MOUNT = """
import os, subprocess, sys
from pathlib import Path
from p2psync.fs.scan import confirm_missing
from tests.support.looking import Seen, changed, missing, opened, problems
folder = Path(sys.argv[1])
with opened(folder) as root:
    (folder / "d" / "e").mkdir(parents=True)
    (folder / "d" / "e" / "x").write_bytes(b"x")
    seen = Seen(root)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "d"], check=True)
    scans = seen.scan() + seen.scan(start=b"d") + seen.scan(start=b"d/e")
    assert (changed(scans), missing(scans)) == ([], []), scans
    assert {it.path for it in problems(scans)} == {b"d", b"d/e"}, scans
    assert confirm_missing(root, [b"d", b"d/e", b"d/e/x"]) == []
    subprocess.run(["umount", folder / "d"], check=True)
    scans = seen.scan()
    assert (changed(scans), missing(scans), problems(scans)) == ([], [], []), scans
"""


@pytest.mark.slow
def test_h13_a_mount_appears_and_goes(tmp_path: Path) -> None:
    """Something mounted over a synced directory hides it, and deletes nothing in it."""
    require("mountns")
    way = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-U", "-r", "-m"]
    subprocess.run(
        [*way, sys.executable, "-c", MOUNT, tmp_path / "folder"], check=True, cwd=REPOSITORY
    )


@pytest.mark.slow
def test_g04_a_deep_tree(root: Root, folder: Path) -> None:
    """1,000 directories in each other are scanned without recursion."""
    with looking.deep(folder, "d", "x"):
        seen = Seen(root)
        assert len(seen.rows) == 1_001
        deepest = b"d/" * 999 + b"d"
        assert seen.scan(start=deepest) == [DirectoryScan(deepest)]


def test_f12_names_are_bytes(root: Root, folder: Path) -> None:
    """Names that are not UTF-8, or full of control characters, are found as they are."""
    names = [b"caf\xe9", b"new\nline", b"esc\x1b[2J", b"-x", b"\xff\xfe"]
    for name in names:
        os.mkdir(bytes(folder) + b"/" + name)
        Path(os.fsdecode(bytes(folder) + b"/" + name + b"/" + name)).touch()
    seen = Seen(root)
    assert sorted(seen.rows) == sorted([*names, *(name + b"/" + name for name in names)])
    assert changed(seen.scan()) == []


def test_i09_no_descriptor_stays_open(root: Root, folder: Path) -> None:
    """However a scan ends, its descriptors are closed."""
    fill(folder)
    before = os.listdir("/proc/self/fd")
    for start in (b"", b"none", b"a", b"link"):
        list(scan_tree(root, start, lambda _: {}, NOTHING))
        confirm_missing(root, [start, start + b"/x"])
    load_rules(root)
    assert os.listdir("/proc/self/fd") == before


# ---------------------------------------------------------------------- ignore rules


def test_q01_a_rule_for_a_synced_file_deletes_nothing(root: Root, folder: Path) -> None:
    """What has rows and is ignored now is neither changed nor missing, there or not."""
    fill(folder)
    seen = Seen(root)
    rules = Rules.parse(b"a\n/d/\n")
    (folder / "a").unlink()
    (folder / "d" / "b").write_bytes(b"changed")
    scans = seen.scan(rules) + seen.scan(rules, start=b"d") + seen.scan(rules, start=b"d/e")
    assert (changed(scans), missing(scans), problems(scans)) == ([], [], [])
    assert sorted(scans[0].ignored) == [b".p2psync", b"d"]
    shutil.rmtree(folder / "d")
    assert missing(seen.scan(rules)) == []


def test_q02_without_the_rule_it_is_missing_again(root: Root, folder: Path) -> None:
    """Taking the rule back shows what was deleted meanwhile: safe mode fetches it."""
    fill(folder)
    seen = Seen(root)
    (folder / "a").unlink()
    assert missing(seen.scan(Rules.parse(b"a"))) == []
    assert missing(seen.scan()) == [b"a"]


def test_q04_a_rule_for_directories_leaves_a_file_of_that_name(
    root: Root, folder: Path
) -> None:
    """The row's kind decides for what is not on the disk, the disk's kind for what is."""
    (folder / "x").touch()
    (folder / "y").mkdir()
    seen = Seen(root)
    rules = Rules.parse(b"x/\ny/\n")
    (folder / "x").unlink()
    (folder / "y").rmdir()
    assert missing(seen.scan(rules)) == [b"x"]
    (folder / "y").touch()
    assert changed(seen.scan(rules)) == [b"y"]


def test_c06_what_is_ignored_is_named(root: Root, folder: Path) -> None:
    """Whoever wants to delete a directory learns what else stands in it."""
    fill(folder)
    (folder / "d" / "x.o").touch()
    (folder / "d" / "cache").mkdir()
    (folder / "d" / "cache" / "y").touch()
    scan = scan_directory(root, b"d", {}, Rules.parse(b"*.o\ncache/"))
    assert sorted(scan.ignored) == [b"d/cache", b"d/x.o"]
    assert sorted(scan.changed) == [b"d/b", b"d/e"]
    assert scan.subdirectories == [b"d/e"]


def test_q09_no_phantoms_below_an_ignored_directory(root: Root, folder: Path) -> None:
    """A child taken back in below an ignored directory is not found without its parent."""
    fill(folder)
    scans = list(scan_tree(root, b"", lambda _: {}, Rules.parse(b"d/\n!d/b")))
    assert sorted(changed(scans)) == [b"a", b"link"]


def bad_rules(root: Root) -> tuple[Reason, str]:
    """Load rules that cannot be used; return why."""
    found = load_rules(root)
    assert isinstance(found, Problem)
    assert found.path == b".p2psyncignore"
    return found.reason, found.detail


def test_no_rules_and_good_rules(root: Root, folder: Path) -> None:
    """Without the file nothing is ignored; with it, what it says."""
    assert load_rules(root) is NOTHING
    (folder / ".p2psyncignore").write_bytes(b"*.o\n")
    rules = load_rules(root)
    assert isinstance(rules, Rules)
    assert rules.ignored(b"d/x.o")


def test_q05_rules_that_cannot_be_used(root: Root, folder: Path) -> None:
    """A link, a directory, a fifo, nonsense or too much is a problem, never no rules."""
    path = folder / ".p2psyncignore"
    (folder / "rules").write_bytes(b"*.o\n")
    path.symlink_to("rules")
    assert bad_rules(root) == (Reason.BAD_RULES, "it is not a regular file")
    path.unlink()
    path.symlink_to("nowhere")
    assert bad_rules(root)[0] is Reason.BAD_RULES
    path.unlink()
    path.mkdir()
    assert bad_rules(root)[0] is Reason.BAD_RULES
    path.rmdir()
    os.mkfifo(path)
    assert bad_rules(root)[0] is Reason.BAD_RULES
    path.unlink()
    path.write_bytes(b"a\n[b\n")
    assert bad_rules(root) == (
        Reason.BAD_RULES,
        "line 2: a bracket is opened and not closed",
    )
    path.write_bytes(b"# " + b"x" * 2**20)
    assert bad_rules(root)[0] is Reason.BAD_RULES


def test_q05_rules_that_cannot_be_read(root: Root, folder: Path) -> None:
    """Rules that may not be read are a problem, never no rules."""
    folder.chmod(0o755)
    (folder / ".p2psyncignore").write_bytes(b"*.o\n")
    (folder / ".p2psyncignore").chmod(0)
    with unprivileged():
        assert bad_rules(root)[0] is Reason.UNREADABLE


def test_q05_rules_that_are_being_written(
    root: Root, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that change while they are read are read again later."""
    path = folder / ".p2psyncignore"
    path.write_bytes(b"*.o\n")
    real = os.read

    def read(fd: int, size: int) -> bytes:
        data = real(fd, size)
        path.write_bytes(b"*.o\n*.a\n")
        return data

    monkeypatch.setattr(os, "read", read)
    assert bad_rules(root)[0] is Reason.CHANGING


def test_what_was_observed_is_believed(root: Root, folder: Path) -> None:
    """A row made from an observation is the same at the next scan, for every kind."""
    fill(folder)
    seen = Seen(root)
    for path, row in seen.rows.items():
        found = observe(root, path)
        assert isinstance(found, Observed)
        assert found.content == row.place.content
    assert changed(seen.scan()) == []
