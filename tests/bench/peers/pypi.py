"""The virtual environment of the peers that come from PyPI: kept under a hash of its lock file."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.parts.fingerprint import fingerprint
from tests.parts.machine import cache_directory

from .base import Absent

LOCK = Path(__file__).parent.parent / "peers.txt"


def binaries() -> Path:
    """Its ``bin`` directory, made when it is missing (about a minute and 900 MB). Raises ``Absent``."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    target = cache_directory() / f"bench-peers-{fingerprint(LOCK, version)}"
    # a stamp, written last: an environment cannot be renamed, its scripts name its place
    stamp = target / "complete"
    if stamp.exists():
        return target / "bin"
    refused = target.with_suffix(".absent")
    if refused.exists():
        raise Absent(
            f"could not be installed before: {refused.read_text().strip()} (remove {refused} to try again)"
        )
    print(f"installing the peers of {LOCK.name} into {target}", file=sys.stderr, flush=True)
    begun = time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(target)],
        [
            str(target / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check",
            # the lock is whole: older pips, resolving it once more, ask for another version of an extra's package
            "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(LOCK),
        ],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["it failed"]
            refused.write_text(said[-1] + "\n", encoding="utf-8")
            raise Absent(f"could not be installed: {said[-1]}")
    stamp.write_text(f"{time.monotonic() - begun:.0f} s\n", encoding="utf-8")
    return target / "bin"
