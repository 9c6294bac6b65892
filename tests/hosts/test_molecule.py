"""Every scenario of every role, run by molecule: check, converge, idempotence, verify."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCENARIOS = sorted(path.parent for path in ROOT.glob("roles/*/molecule/*/molecule.yml"))
COLOURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;;[^\x07\x1b]*(?:\x07|\x1b\\)")


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 5


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Sockets lie below it, and a socket's path may have 107 bytes: pytest's own directories are too deep."""
    with tempfile.TemporaryDirectory(prefix="m") as name:
        yield Path(name)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: f"{path.parents[1].name}-{path.name}")
def test_scenario(scenario: Path, short_directory: Path) -> None:
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "ANSIBLE_HOME": str(short_directory),
        # the Python package of this checkout, whatever is installed
        "PYTHONPATH": str(ROOT / "proxy"),
        "ANSIBLE_ROLES_PATH": str(ROOT / "roles"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        [str(binaries / "molecule"), "test", "--scenario-name", scenario.name],
        cwd=scenario.parents[1],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    output = COLOURS.sub("", done.stdout)
    assert done.returncode == 0, "\n".join(output.splitlines()[-150:])
