"""The trees that are synced: the machine's own where it has them, else made; always the same.

What is made depends only on the arguments: contents and sizes come from a seeded generator.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MIB: Final = 2**20
PER_DIRECTORY: Final = 1_000
COPY_TIMEOUT_S: Final = 900


def big_file(target: Path, size_bytes: int, name: str = "big") -> None:
    """Make a directory with one file that does not compress."""
    target.mkdir(parents=True)
    generator = random.Random(1)
    with (target / name).open("wb") as file:
        for begin in range(0, size_bytes, MIB):
            file.write(generator.randbytes(min(MIB, size_bytes - begin)))


def tiny_files(target: Path, count: int, size_bytes: int = 16) -> None:
    """Make files of equal size and different contents, a thousand to a directory."""
    for number in range(count):
        if number % PER_DIRECTORY == 0:
            directory = target / f"{number // PER_DIRECTORY:04}"
            directory.mkdir(parents=True)
        (directory / f"{number % PER_DIRECTORY:03}").write_bytes(_numbered(number, size_bytes))


def small_files(target: Path, count: int | None = None) -> None:
    """Copy /usr/include, or make as many files like it. count: at most; None: all there are."""
    _copy_or_make(target, Path("/usr/include"), least=1_000, made=8_000, count=count)


def mix(target: Path, count: int | None = None) -> None:
    """Copy /usr/share, or make as many files like it. count: at most; None: all there are."""
    _copy_or_make(target, Path("/usr/share"), least=20_000, made=48_000, count=count)


def files_in(top: Path) -> int:
    """Return how many files (links included) are below a directory."""
    return sum(len(names) for _, _, names in os.walk(top))


def bytes_in(top: Path) -> int:
    """Return the sizes of all regular files below a directory, added up."""
    return sum(path.lstat().st_size for path in regular_files(top))


def regular_files(top: Path) -> Iterator[Path]:
    """Yield the regular files below a directory, in a fixed order."""
    for directory, subdirectories, names in os.walk(top):
        subdirectories.sort()
        for name in sorted(names):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def copy(source: Path, target: Path) -> None:
    """Copy a tree as it is; target must not exist."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", source, target], check=True, timeout=COPY_TIMEOUT_S)


def _copy_or_make(target: Path, source: Path, least: int, made: int, count: int | None) -> None:
    if files_in(source) < least:
        made_like_a_system(target, count or made)
    elif count is None:
        copy(source, target)
    else:
        for _, path in zip(range(count), regular_files(source), strict=False):
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())


def made_like_a_system(target: Path, count: int) -> None:
    """Make files as a system has them: median 2 KiB, mean about 10 KiB, ten to a directory."""
    generator = random.Random(2)
    for number in range(count):
        directory = target / f"{number // 1_000:02}" / f"{number // 10 % 100:02}"
        directory.mkdir(parents=True, exist_ok=True)
        size = min(int(generator.lognormvariate(7.6, 1.8)), 8 * MIB)
        (directory / f"file-{number}").write_bytes(generator.randbytes(size))


def _numbered(number: int, size_bytes: int) -> bytes:
    return (b"%015d\n" % number).ljust(size_bytes, b".")[:size_bytes]
