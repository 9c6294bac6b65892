"""Pip as a part needs it: with the machine's own settings, and a failure that says what was wanted."""

from __future__ import annotations

import subprocess
import sys

from tests.parts.errors import PartError


def pip(*arguments: str, what: str) -> None:
    """Run ``pip ARGUMENTS``. Raises :class:`PartError`, a sentence that begins with `what`, when that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise PartError(f"{what}:\n{done.stderr.strip()[-4000:]}")
