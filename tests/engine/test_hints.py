"""Following hints: exactly where they point, with the evidence that a full scan asks for."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from p2psync.core.draft import Draft
from p2psync.core.entry import Kind
from p2psync.core.ignore import NOTHING, Rules
from p2psync.core.index import Row
from p2psync.core.problem import Reason
from p2psync.engine import scanning, survey
from p2psync.engine.scanning import Found, Scanner
from p2psync.fs.root import Root
from p2psync.fs.watch import Hint
from p2psync.store.index import Index
from tests.support import looking
from tests.support.looking import unprivileged
from tests.support.replicas import PATIENCE_S, Site, cluster

folder = looking.folder
root = looking.root


class Scanned:
    """A folder and the index of what was found in it."""

    def __init__(self, root: Root, index: Index) -> None:
        self.root = root
        self.index = index
        self.scanner = Scanner(index, root, lambda: Draft(index, spare_author=7))

    def everything(self) -> None:
        """Scan all there is."""
        for _ in self.scanner.tree(b"", NOTHING):
            pass

    def hinted(self, hint: Hint, rules: Rules = NOTHING) -> list[Found]:
        """Follow a hint."""
        return list(self.scanner.hinted(hint, rules))

    def paths(self) -> list[bytes]:
        """What the index believes to stand here."""
        return list(self.index.rows_below(b""))


@pytest.fixture
def scanned(root: Root, tmp_path: Path) -> Iterator[Scanned]:
    """A folder with a file and a directory of two, scanned once."""
    folder = Path(os.fsdecode(root.path))
    (folder / "a").write_bytes(b"a")
    (folder / "d" / "e").mkdir(parents=True)
    (folder / "d" / "b").write_bytes(b"b")
    (folder / "d" / "e" / "c").write_bytes(b"c")
    index = Index.open(tmp_path / "index.db", start=1)
    it = Scanned(root, index)
    it.everything()
    try:
        yield it
    finally:
        index.close()


def test_only_what_is_named_is_looked_at(scanned: Scanned, folder: Path) -> None:
    """A changed file is taken in; its new neighbour, of which nothing was said, is not."""
    (folder / "d" / "b").write_bytes(b"bb")
    (folder / "d" / "neighbour").write_bytes(b"n")
    assert scanned.hinted(Hint({b"d/b"}))[0].changed
    assert scanned.index.rows([b"d/b"])[b"d/b"].place.size == 2
    assert b"d/neighbour" not in scanned.paths()


def test_b12_our_own_writes_change_nothing(scanned: Scanned) -> None:
    """What is as the rows say is not read, and nobody is told anything."""
    while not all(row.signature for row in scanned.index.rows(scanned.paths()).values()):
        scanned.everything()  # what was written just now is read again before it is trusted
    before = scanned.index.facts()
    found = scanned.hinted(Hint(set(scanned.paths()), {b"", b"d"}, {b"d/e"}))
    assert not any(each.changed for each in found)
    assert scanned.index.facts() == before


def test_what_is_gone_takes_along_what_was_below(scanned: Scanned, folder: Path) -> None:
    """A directory that left is missing with all its rows, though only it was named."""
    shutil.rmtree(folder / "d")
    scanned.hinted(Hint({b"d", b"d/e"}))
    assert scanned.paths() == [b"a"]


def test_a_rename_is_one_step(scanned: Scanned, folder: Path) -> None:
    """The new name is taken in before the old one goes, so nobody ever misses the contents."""
    (folder / "d").rename(folder / "x")
    found = scanned.hinted(Hint({b"d"}, trees={b"x"}))
    assert sum(each.changed for each in found) == 1
    assert scanned.paths() == [b"a", b"x", b"x/b", b"x/e", b"x/e/c"]


def settle(index: Index, root: Root) -> None:
    """Believe the timestamps of all rows: enough time has passed."""
    draft = Draft(index, spare_author=8)
    for path, row in index.rows(list(index.rows_below(b""))).items():
        draft.set_row(path, Row(row.place, root.look(path)))
    index.write(draft.finish())


def content_of(data: bytes) -> bytes:
    return blake3(data).digest()


@pytest.mark.parametrize("whole", [False, True], ids=["hinted", "full scan"])
def test_a_renamed_directory_is_not_read(
    scanned: Scanned, folder: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in it has its old contents, at any depth, without a byte being read."""
    settle(scanned.index, scanned.root)
    (folder / "d").rename(folder / "x")
    monkeypatch.setattr(os, "read", None)
    if whole:
        scanned.everything()
    else:
        scanned.hinted(Hint({b"d"}, trees={b"x"}))
    assert scanned.paths() == [b"a", b"x", b"x/b", b"x/e", b"x/e/c"]
    rows = scanned.index.rows([b"x/b", b"x/e/c"])
    assert rows[b"x/b"].place.content == content_of(b"b")
    assert rows[b"x/e/c"].place.content == content_of(b"c")
    assert rows[b"x/b"].signature == scanned.root.look(b"x/b")


def test_what_changed_in_a_renamed_directory_is_read(scanned: Scanned, folder: Path) -> None:
    """A file that is not word for word as its row says is read, and so is another file."""
    settle(scanned.index, scanned.root)
    (folder / "d").rename(folder / "x")
    before = (folder / "x" / "b").stat()
    (folder / "x" / "b").write_bytes(b"B")
    os.utime(folder / "x" / "b", ns=(before.st_atime_ns, before.st_mtime_ns))
    (folder / "x" / "e" / "c").unlink()
    (folder / "x" / "e" / "c").write_bytes(b"C")
    scanned.hinted(Hint({b"d"}, trees={b"x"}))
    rows = scanned.index.rows([b"x/b", b"x/e/c"])
    assert rows[b"x/b"].place.content == content_of(b"B")
    assert rows[b"x/e/c"].place.content == content_of(b"C")


def test_what_may_have_changed_unseen_is_read(scanned: Scanned, folder: Path) -> None:
    """A row without a signature, made within the timestamps' grain, is no evidence."""
    settle(scanned.index, scanned.root)
    draft = Draft(scanned.index, spare_author=8)
    row = scanned.index.rows([b"d/b"])[b"d/b"]
    draft.set_row(b"d/b", Row(row.place._replace(content=b"?" * 32), None))
    scanned.index.write(draft.finish())
    (folder / "d").rename(folder / "x")
    scanned.hinted(Hint({b"d"}, trees={b"x"}))
    assert scanned.index.rows([b"x/b"])[b"x/b"].place.content == content_of(b"b")


def test_two_directories_that_swapped_names_are_not_read(
    scanned: Scanned, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is recognised under the other's name."""
    (folder / "g").mkdir()
    (folder / "g" / "b").write_bytes(b"g")
    scanned.everything()
    settle(scanned.index, scanned.root)
    (folder / "d").rename(folder / "t")
    (folder / "g").rename(folder / "d")
    (folder / "t").rename(folder / "g")
    monkeypatch.setattr(os, "read", None)
    scanned.everything()
    rows = scanned.index.rows([b"d/b", b"g/b"])
    assert rows[b"d/b"].place.content == content_of(b"g")
    assert rows[b"g/b"].place.content == content_of(b"b")


def test_half_a_move_is_told_as_such(
    scanned: Scanned, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first unit that sees something missing to the last, the scan is not settled."""
    monkeypatch.setattr(scanning, "UNIT_MOVED", 2)
    settle(scanned.index, scanned.root)
    (folder / "d").rename(folder / "x")
    settled = []
    for found in scanned.scanner.hinted(Hint({b"d"}, trees={b"x"}), NOTHING):
        settled.append((found.over is not None, scanned.scanner.settled))
    assert len(settled) > 2
    assert settled[-1] == (True, True)
    assert not any(is_settled for _, is_settled in settled[:-1])


def test_a_directory_that_became_a_file(scanned: Scanned, folder: Path) -> None:
    """What was below is gone with it."""
    shutil.rmtree(folder / "d")
    (folder / "d").write_bytes(b"file")
    scanned.hinted(Hint({b"d"}))
    assert scanned.paths() == [b"a", b"d"]
    assert scanned.index.rows([b"d"])[b"d"].place.kind is Kind.FILE


def test_a_new_directory_is_taken_in_whole(scanned: Scanned, folder: Path) -> None:
    """Named alone, or met in a directory that is looked at, it comes with all below."""
    (folder / "new" / "er").mkdir(parents=True)
    (folder / "new" / "er" / "f").touch()
    shutil.copytree(folder / "new", folder / "d" / "new")
    scanned.hinted(Hint({b"new"}, {b"d"}))
    assert {b"new/er/f", b"d/new/er/f"} <= set(scanned.paths())


def test_i02_what_cannot_be_read_is_not_missing(scanned: Scanned, folder: Path) -> None:
    """A directory that may not be entered any more loses nothing, and it says so."""
    (folder / "d").chmod(0)
    with unprivileged():
        found = scanned.hinted(Hint({b"d/b"}))
    (folder / "d").chmod(0o755)
    assert b"d/b" in scanned.paths()
    assert found[0].problems[b"d"] is not None
    assert found[0].problems[b"d"].reason is Reason.UNREADABLE


def test_q02_what_is_ignored_is_not_taken_in(scanned: Scanned, folder: Path) -> None:
    """Nor is what was ignored later taken for deleted."""
    (folder / "d" / "x.o").touch()
    (folder / "a").unlink()
    rules = Rules.parse(b"*.o\n/a\n")
    scanned.hinted(Hint({b"d/x.o", b"a"}), rules)
    assert b"d/x.o" not in scanned.paths()
    assert b"a" in scanned.paths()


def test_a_problem_is_over_when_its_path_was_looked_at(scanned: Scanned) -> None:
    """Of paths of which nothing was said, nothing is known."""
    over = scanned.hinted(Hint({b"a"}, {b"d"}))[-1].over
    assert over is not None
    assert over.looked_at(b"a")
    assert over.looked_at(b"d/b")
    assert not over.looked_at(b"z")
    assert not over.looked_at(b"d/e/c")


def test_the_next_full_scan_is_paced_by_its_cost() -> None:
    """500 times its CPU seconds, between a minute and a day."""
    assert survey.pause_after(0.0) == 60.0
    assert survey.pause_after(0.5) == 250.0
    assert survey.pause_after(1_000.0) == 86_400.0


async def test_a_hint_does_not_wait_for_a_full_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is followed between two units: a save is told while a million files are looked at."""
    monkeypatch.setattr(scanning, "UNIT_LOOKS", 5)
    async with cluster(tmp_path, "a") as made:
        a = made.sites["a"]
        for directory, number in itertools.product("abcd", range(5)):
            (a.root / directory).mkdir(exist_ok=True)
            (a.root / directory / str(number)).touch()
        await a.replica.survey.now()
        noted: list[Found] = []
        note = a.replica.note

        def noting(found: Found) -> None:
            if not noted:  # "a" has been looked at
                (a.root / "a" / "save").touch()
                a.replica.survey.follow(Hint({b"a/save"}))
            noted.append(found)
            note(found)

        monkeypatch.setattr(a.replica, "note", noting)
        await a.replica.survey.now()
        changed = [each.changed for each in noted]
        assert changed.index(True) < len(changed) - 2
        assert noted[-1].over is not None


# ---------------------------------------------------------------------- the watcher alone


def shuffle(root: Path, chance: random.Random) -> None:
    """Do one thing a person or a program might do."""
    found = [Path(place) for place, _, _ in os.walk(root) if ".p2psync" not in place]
    files = [file for place in found for file in place.iterdir() if file.is_file()]
    place, name = chance.choice(found), f"n{chance.randrange(6)}"
    free = not (place / name).exists()
    match chance.randrange(7):
        case 0 | 1 if free or (place / name).is_file():
            (place / name).write_bytes(chance.randbytes(3))
        case 2 if free:
            (place / name / "m" / "m").mkdir(parents=True)
            (place / name / "m" / "m" / "x").write_bytes(chance.randbytes(2))
        case 3 if files:
            chance.choice(files).unlink()
        case 4 if files and (free or (place / name).is_file()):
            chance.choice(files).rename(place / name)
        case 5 if place != root:
            move_somewhere(place, chance.choice(found) / name)
        case 6 if place != root:
            shutil.rmtree(place)


def move_somewhere(place: Path, target: Path) -> None:
    """Rename a directory, if that can be."""
    if not target.exists() and not target.is_relative_to(place):
        place.rename(target)


def standing(site: Site) -> dict[bytes, bytes]:
    """What stands on the disk: paths, and the hash of what is in a file."""
    return {
        os.fsencode(path): b"" if content is None else blake3(content).digest()
        for path, content in site.tree().items()
    }


def believed(site: Site) -> dict[bytes, bytes]:
    """What the index believes to stand there."""
    index = site.replica.stock.index
    rows = index.rows(list(index.rows_below(b"")))
    return {path: row.place.content for path, row in rows.items()}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_r01_hints_alone_find_everything(tmp_path: Path, seed: int) -> None:
    """Whatever is done, in bursts and with pauses, the index follows without a full scan."""
    chance = random.Random(seed)
    async with cluster(tmp_path, "a") as made:
        a = made.sites["a"]
        await a.replica.survey.now()
        scans = 0
        tree = a.replica.stock.scanner.tree

        def counted(start: bytes, rules: Rules) -> Iterator[Found]:
            nonlocal scans
            scans += 1
            return tree(start, rules)

        a.replica.stock.scanner.tree = counted  # type: ignore[method-assign]
        for _ in range(40):
            for _ in range(chance.randrange(12)):
                shuffle(a.root, chance)
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.06]))
        async with asyncio.timeout(PATIENCE_S):
            while await a.replica.worker(believed, a) != standing(a):
                await a.replica.changed.wait(0.02)
        assert scans <= 1  # of the watcher's first hint
