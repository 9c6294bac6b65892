"""The proxy's dependencies as wheels in a directory: test hosts have no way to a package index."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.parts import machine
from tests.parts.fingerprint import fingerprint
from tests.parts.pip import pip

LOCK = Path(__file__).parents[2] / "proxy" / "requirements" / "serve.txt"
PYTHON = "3.11"  # of the test hosts


def directory() -> Path:
    """Where the wheels lie once :func:`build_wheelhouse` has run."""
    return machine.cache_directory() / f"wheels-{fingerprint(PYTHON, LOCK)}"


def is_built() -> bool:
    """Whether the wheels are there; they are put into place all together or not at all."""
    return directory().is_dir()


def build_wheelhouse() -> None:
    """Download what the lock names, checked against its hashes."""
    place = directory()
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        pip(
            *["download", "--quiet", "--require-hashes", "--no-deps"],
            *["--only-binary", ":all:", "--python-version", PYTHON],
            *["--dest", str(fresh), "--requirement", str(LOCK)],
            what="The proxy's dependencies were not downloaded",
        )
        fresh.chmod(0o755)
        os.rename(fresh, place)  # noqa: PTH104
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
