"""A real echo engine in its own process, on a free port."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str

    def finish(self, timeout: float = 20) -> tuple[int, str, str]:
        """Wait for the end: exit code and what is left of the two outputs."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err


Start = Callable[..., Running]


@contextmanager
def starter() -> Iterator[Start]:
    """Gives a function that starts engines with the given options; all of them are gone afterwards."""
    with ExitStack() as stack:

        def start(*options: str) -> Running:
            command = [sys.executable, "-m", "modelyard", "echo", "--port", "0", "--json", *options]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            return Running(process, json.loads(line)["url"])

        yield start


@pytest.fixture
def start_echo() -> Iterator[Start]:
    """Start engines for one test."""
    with starter() as start:
        yield start


@pytest.fixture(scope="module")
def engine() -> Iterator[Running]:
    """One fast engine that the tests of a module share; they must leave no trace in it."""
    with starter() as start:
        yield start("--model", "demo", "--model", "alias", "--max-model-len", "100", "--instance", "one")
