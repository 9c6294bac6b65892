"""The dependencies of the proxy and of the hub's client as wheels: test hosts have no way to a package index."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.parts import machine
from tests.parts.fingerprint import fingerprint
from tests.parts.pip import pip

_ROOT = Path(__file__).parents[2]
LOCK = _ROOT / "proxy" / "requirements" / "serve.txt"
HUB_LOCK = _ROOT / "roles" / "model_weights" / "files" / "hub-requirements.txt"
PYTHON = "3.11"  # of the test hosts


def directory(lock: Path = LOCK) -> Path:
    """Where the wheels lie once :func:`build_wheelhouse` has run."""
    return machine.cache_directory() / f"wheels-{fingerprint(PYTHON, lock)}"


def is_built(lock: Path = LOCK) -> bool:
    """Whether the wheels are there; they are put into place all together or not at all."""
    return directory(lock).is_dir()


def build_wheelhouse(lock: Path = LOCK) -> None:
    """Download what the lock names, checked against its hashes."""
    place = directory(lock)
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=place.parent))
    try:
        pip(
            *["download", "--quiet", "--require-hashes", "--no-deps"],
            *["--only-binary", ":all:", "--python-version", PYTHON],
            *["--dest", str(fresh), "--requirement", str(lock)],
            what=f"What {lock.name} names was not downloaded",
        )
        fresh.chmod(0o755)
        os.rename(fresh, place)  # noqa: PTH104
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
