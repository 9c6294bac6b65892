"""Fixtures for tests with real hosts; the conftest files of the rooms that use them import them.

Without a Docker engine these tests fail, they are not skipped: a run that tested nothing must not look like
one that passed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hosts.lab import Lab
from tests.hosts.machine import Host
from tests.hosts.newcomer import Newcomer
from tests.hosts.owner import Owner, sweep
from tests.parts.building import PARTS, alone, ensure, say_on_stderr
from tests.parts.errors import PartError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def parts() -> None:
    """All parts are built; what killed sessions left is gone. Fails where Docker does not work."""
    try:
        ensure(list(PARTS), say_on_stderr)
        with alone(say_on_stderr):
            for name in sweep():
                say_on_stderr(f"  removed what a killed test session left: {name}")
    except PartError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module")
def lab(parts: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An isolated network for this module's hosts, and the key to them."""
    with Lab(tmp_path_factory.mktemp("lab"), random.Random()) as laboratory:
        yield laboratory


@pytest.fixture(scope="module")
def start_hosts(lab: Lab) -> Callable[..., list[Host]]:
    """Start more hosts by name; they are removed with the module."""
    return lab.start


@pytest.fixture(scope="module")
def plain_host(parts: None) -> Iterator[Newcomer]:
    """A fresh Debian with a new user and a clone of what is committed."""
    owner = Owner.current()
    with Newcomer(
        REPOSITORY, f"modelyard-test-{owner.pid}-newcomer-{random.randrange(16**4):04x}"
    ) as newcomer:
        yield newcomer
