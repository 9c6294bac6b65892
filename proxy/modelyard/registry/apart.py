"""Read a large registry without disturbing what else runs.

Parsing and checking happen in a process of their own, which hands back plain data model by model; the thread that
builds the registry from it lets others have the interpreter again and again. A thread alone would not do: whoever
waits for the interpreter waits up to 5 ms, at each event of each stream.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modelyard.errors import RegistryRefusedError

from .load import build, load_file, read, read_text, refusal
from .model import Registry

_log = logging.getLogger(__name__)
# a file of this size takes about 10 ms; beginning a process takes a fifth of a second
LARGE_BYTES = 128 * 1024
_LIMIT_S = 60.0
_NICE = 5
_WORK_S = _REST_S = 0.0005

Pause = Callable[[], None]


class Pauses:
    """Called again and again by a thread that works: it sleeps a little after each half millisecond of work."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def __call__(self) -> None:
        """Sleep if it is time to."""
        if time.perf_counter() - self._since >= _WORK_S:
            time.sleep(_REST_S)
            self._since = time.perf_counter()


@contextmanager
def uncollected() -> Iterator[None]:
    """No search for garbage meanwhile: what a registry is made of is kept, and looking through it again and again
    would stop everything each time.
    """
    was = gc.isenabled()
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def load_apart(path: Path, pause: Pause) -> Registry:
    """``load_file`` for a thread beside a running loop. Raises ``RegistryRefusedError``."""
    try:
        large = path.stat().st_size >= LARGE_BYTES
    except OSError:
        large = False
    lines = _read_apart(path) if large else None
    if lines is None:
        return load_file(path)
    head = json.loads(next(lines))
    if "problems" in head:
        raise RegistryRefusedError(head["message"], head["problems"])

    def models() -> Iterator[tuple[str, dict[str, Any]]]:
        for line in lines:
            pause()
            name, entry = json.loads(line)
            yield name, entry

    return build(head, models())


def _read_apart(path: Path) -> Iterator[bytes] | None:
    """The lines that ``main`` prints; ``None`` when that could not be done, so that it has to be done here."""
    command = [sys.executable, "-m", __name__, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        _log.warning("registry %s: cannot be read in a process of its own, and is read here (%s)", path, exc)
        return None
    lines = done.stdout.splitlines()
    if not lines or lines[-1] != b"null":
        _log.warning("registry %s: the process that reads it ended early; it is read here", path)
        return None
    return iter(lines[:-1])


def answer(path: Path) -> Iterator[str]:
    """What another process is told of the registry at ``path``: a line with everything but the models or with all
    problems, one for each model, and ``null``.
    """
    try:
        data, problems = read(read_text(path), str(path))
        if problems:
            raise refusal(str(path), problems)
    except RegistryRefusedError as exc:
        yield json.dumps({"message": exc.message, "problems": list(exc.problems)})
    else:
        models: Mapping[str, Any] = data.pop("models")
        yield json.dumps(data)
        for name, entry in models.items():
            yield json.dumps([name, entry])
    yield "null"


def main(arguments: list[str]) -> None:
    """``apart <path>``: print the answer."""
    # streams come first
    os.nice(_NICE)
    sys.stdout.writelines(f"{line}\n" for line in answer(Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
