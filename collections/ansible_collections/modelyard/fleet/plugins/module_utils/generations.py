"""Configurations as whole directories: written aside, judged by their program, put in place in one step, gone back to.

Below a root lie ``generations/<number>/``, and two links: ``current`` is what the program reads, ``good`` is what it is
known to have run with. All of it is for its owner alone, since private keys are among it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ansible_collections.modelyard.fleet.plugins.module_utils.files import fsync_directory

CURRENT, GOOD = "current", "good"
NUMBER = "@GENERATION@"
"""Stands in a file for the number of its own generation."""
_GENERATIONS = "generations"
_PART = ".part-"
_FILE, _DIRECTORY = 0o600, 0o700


class GenerationError(Exception):
    """Why a generation cannot be made or gone back to, as a sentence for the operator."""


def number_of(root: Path, link: str) -> int | None:
    """The number of the generation that ``current`` or ``good`` leads to; None where there is none."""
    try:
        number = int((root / link).readlink().name)
    except (OSError, ValueError):
        return None
    return number if (root / _GENERATIONS / str(number)).is_dir() else None


def contents(root: Path, link: str) -> dict[str, bytes] | None:
    """Every file of a generation by its path within; None where there is none. Raises ``OSError``."""
    number = number_of(root, link)
    if number is None:
        return None
    place = root / _GENERATIONS / str(number)
    return {
        str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
    }


def loose(root: Path) -> bool:
    """Whether something of the current generation can be read by others than its owner."""
    number = number_of(root, CURRENT)
    if number is None:
        return False
    place = root / _GENERATIONS / str(number)
    return any(path.stat().st_mode & 0o077 for path in (root, place, *place.rglob("*")))


def ended(data: bytes) -> bytes:
    """With the end of its last line, as every file of a generation has it, so that what follows begins on a new one."""
    return data if data.endswith(b"\n") else data + b"\n"


def digests(files: Mapping[str, str]) -> dict[str, str]:
    """What each file of a wish would be in a generation, as the SHA-256 of its bytes: fit for what is secret."""
    return {name: hashlib.sha256(ended(str(text).encode())).hexdigest() for name, text in files.items()}


def numbered(files: Mapping[str, bytes], number: int) -> dict[str, bytes]:
    """The files as they stand in the generation of this number."""
    return {name: data.replace(NUMBER.encode(), str(number).encode()) for name, data in files.items()}


def next_number(root: Path) -> int:
    """A number that no generation has had that is still there."""
    taken = [int(path.name) for path in (root / _GENERATIONS).glob("*") if path.name.isdecimal()]
    return max(taken, default=0) + 1


@contextlib.contextmanager
def tried(files: Mapping[str, bytes], parent: Path | None) -> Iterator[Path]:
    """A directory with the files, below ``parent`` or where temporary things lie; gone afterwards unless it was moved."""
    place = Path(tempfile.mkdtemp(prefix=_PART, dir=parent))
    try:
        write(place, files)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write(place: Path, files: Mapping[str, bytes]) -> None:
    """Write the files into a directory, each on the disk and for its owner alone. Raises ``OSError``."""
    for name, data in files.items():
        path = place / name
        path.parent.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    for directory in {place, *((place / name).parent for name in files)}:
        fsync_directory(directory)


def take(root: Path, files: Mapping[str, bytes], judge: Callable[[Path], None]) -> int:
    """Make the next generation of the files and lead ``current`` to it; its number.

    ``judge`` looks at the directory before that and raises where the program would refuse it; what was there stays then.
    """
    generations = root / _GENERATIONS
    for directory in (root, generations):
        directory.mkdir(mode=_DIRECTORY, parents=True, exist_ok=True)
        directory.chmod(_DIRECTORY)
    for leftover in generations.glob(f"{_PART}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    number = next_number(root)
    with tried(numbered(files, number), generations) as part:
        judge(part)
        part.rename(generations / str(number))
    fsync_directory(generations)
    _lead(root, CURRENT, number)
    prune(root)
    return number


def in_force(root: Path) -> None:
    """Note that the program runs with the current generation; older ones go."""
    number = number_of(root, CURRENT)
    if number is None:
        raise GenerationError(f"{root} has no current generation")
    if number_of(root, GOOD) != number:
        _lead(root, GOOD, number)
    prune(root)


def put_back(root: Path) -> int | None:
    """Lead ``current`` to what the program ran with last; its number. None, and no ``current``, where there was nothing."""
    number = number_of(root, GOOD)
    if number is None:
        (root / CURRENT).unlink(missing_ok=True)
    elif number_of(root, CURRENT) != number:
        _lead(root, CURRENT, number)
    prune(root)
    return number


def prune(root: Path) -> None:
    """Remove generations that no link leads to."""
    kept = {str(number_of(root, CURRENT)), str(number_of(root, GOOD))}
    for path in (root / _GENERATIONS).glob("*"):
        if path.name.isdecimal() and path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def _lead(root: Path, link: str, number: int) -> None:
    """Let a link lead to a generation, in one step."""
    part = root / f".{link}.part"
    part.unlink(missing_ok=True)
    part.symlink_to(Path(_GENERATIONS, str(number)))
    part.replace(root / link)
    fsync_directory(root)
