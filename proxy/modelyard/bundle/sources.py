"""What a part is before it is in the bundle: where it comes from, and how it is told while it comes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard.bundle.manifest import BundleError

_LOOK_S = 0.3  # between two looks at how much has come
_LAST_LINES = 12


class Told(Protocol):
    """Who is told what goes on: one part after the other, each with its bytes where they are known."""

    def part(self, text: str, total: int | None) -> None:
        """Another part begins; ``total`` bytes of it are expected."""

    def at(self, done: int) -> None:
        """So many bytes of it are there."""

    def moved(self, count: int) -> None:
        """So many more."""


class Source(Protocol):
    """Something that the fleet needs and that can be brought into a bundle."""

    @property
    def kind(self) -> str:
        """Of the manifest's kinds."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def path(self) -> str:
        """Where it lies in the bundle."""

    @property
    def wish(self) -> Mapping[str, Any]:
        """What is asked for; when it changes, the part is collected anew."""

    def expected(self) -> int | None:
        """How many bytes it has, as far as that can be known without fetching it. Never raises for the network's sake."""

    def collect(self, scratch: Path, told: Told) -> Collected:
        """Bring it into ``scratch``, going on from what an earlier try left there. Raises ``BundleError``."""


@dataclass(frozen=True, slots=True)
class Collected:
    """A part that is there: its file or directory in the scratch, files in it that are not of it, and its details."""

    place: Path
    details: Mapping[str, Any]
    leave_out: tuple[str, ...] = ()


@contextmanager
def watching(place: Path, told: Told) -> Iterator[None]:
    """Tell again and again how many bytes a file or directory has that another program writes."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_S):
            told.at(bytes_below(place))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def bytes_below(place: Path) -> int:
    """Bytes of a file or of all files below a directory; what goes away meanwhile counts nothing."""
    try:
        if not place.is_dir():
            return place.stat().st_size
        total = 0
        for directory, _, names in os.walk(place):
            for name in names:
                try:
                    total += Path(directory, name).lstat().st_size
                except FileNotFoundError:
                    continue
        return total
    except FileNotFoundError:
        return 0


def run(
    command: Sequence[str],
    what: str,
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    run_program: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> str:
    """Standard output of a program. Raises ``BundleError``: ``what`` failed, with the end of what it said."""
    try:
        done = run_program(
            list(command),
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=None if environment is None else dict(environment),
        )
    except FileNotFoundError as error:
        raise BundleError(f"{what}: there is no program {command[0]} on this machine.") from error
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()][-_LAST_LINES:]
        raise BundleError(f"{what} (exit code {done.returncode}).", said)
    return str(done.stdout)
