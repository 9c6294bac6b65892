"""Which commit a directory is at, for the record; nothing when it is no Git work tree."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

_TIMEOUT_S = 10


def commit_of(directory: Path, without: Path | None = None) -> dict[str, Any] | None:
    """``commit`` and whether what lies below the directory is ``dirty``; None without Git or a commit.

    ``without`` is a directory whose content is no part of the wish, such as the state directory.
    """
    head = _git(directory, "rev-parse", "--verify", "HEAD")
    if head is None:
        return None
    paths = ["."]
    if without is not None and without.is_relative_to(directory):
        paths.append(f":(exclude){without.relative_to(directory).as_posix()}")
    status = _git(directory, "status", "--porcelain", "--", *paths)
    return {"commit": head.strip(), "dirty": None if status is None else bool(status.strip())}


def _git(directory: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
