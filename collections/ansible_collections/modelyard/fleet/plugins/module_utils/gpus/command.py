"""Run a program that only reads, and come back in time whatever it does.

``subprocess.run`` waits for a killed child and for whoever else holds its pipes. A program that hangs inside a broken
GPU driver cannot be killed, so here the output goes to files and a child that does not end is left behind.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

OK, FAILED, HUNG, ABSENT = "ok", "failed", "hung", "absent"
LIMIT_BYTES = 32 * 1024 * 1024
_END_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a program ended: ``state`` is ok, failed, hung or absent, ``reason`` a sentence unless it is ok."""

    state: str
    out: str = ""
    err: str = ""
    code: int | None = None
    reason: str = ""

    @property
    def said(self) -> str:
        """Both outputs: tools differ in where they put their complaints."""
        return f"{self.out}\n{self.err}"


def run(argv: Sequence[str], timeout_s: float, name: str) -> Outcome:
    """Run ``argv`` for so many seconds at most. ``name`` is what the sentences call it. Never raises."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
                preexec_fn=_limit,
            )
        except FileNotFoundError:
            return Outcome(ABSENT, reason=f"{name} is not there")
        except (OSError, ValueError) as error:
            return Outcome(FAILED, reason=f"{name} could not be started: {getattr(error, 'strerror', error)}")
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end(child)
            return Outcome(
                HUNG, _text(out), _text(err), None, f"{name} did not answer within {timeout_s:g} s"
            )
        said, complaint = _text(out), _text(err)
    if code == 0:
        return Outcome(OK, said, complaint, 0)
    words = first_line(complaint) or first_line(said) or "it said nothing"
    return Outcome(FAILED, said, complaint, code, f"{name} ended with status {code}: {words}")


def find(name: str, directories: Sequence[str]) -> str | None:
    """The first executable file of this name."""
    for directory in directories:
        file = Path(directory) / name
        if file.is_file() and os.access(file, os.X_OK):
            return str(file)
    return None


def first_line(text: str) -> str:
    """The first line with something on it, at most 300 characters of it, printable ones only."""
    for line in text.splitlines():
        words = " ".join("".join(char if char.isprintable() else " " for char in line).split())
        if words:
            return words[:300]
    return ""


def _limit() -> None:
    """In the child: no more output than somebody would read."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the whole group; leave it when it does not go."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        return


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(LIMIT_BYTES).decode("utf-8", errors="replace")
