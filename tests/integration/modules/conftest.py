"""A server of weights in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVER = Path(__file__).resolve().parents[2] / "tools" / "weights_server.py"
TOKEN = "test-token"


@dataclass
class Weights:
    """Where the served files lie, and the server's address."""

    root: Path
    url: str

    def requests(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/requests", timeout=10) as response:
            found: list[dict[str, Any]] = json.load(response)
        return found


@contextmanager
def serve_weights(root: Path) -> Iterator[Weights]:
    """A server of a directory that runs until the block ends."""
    command = [sys.executable, str(SERVER), str(root), "/dev/stdout", "--token", TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            yield Weights(root, f"http://127.0.0.1:{port}")
        finally:
            process.kill()


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[Weights]:
    """A running server of an empty directory."""
    root = tmp_path / "served"
    root.mkdir()
    with serve_weights(root) as running:
        yield running
