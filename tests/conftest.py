"""What holds for all tests, and how they are spread over workers (``pytest --numprocesses``)."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

_TIDYING_S = 50
_WORKERS = pytest.StashKey[list[Any]]()


def pytest_configure(config: pytest.Config) -> None:
    """Tests start alike wherever they are run from: which signals are heard, and how wide tables are."""
    config.stash[_WORKERS] = []
    os.environ.pop("COLUMNS", None)
    if hasattr(config, "workerinput"):
        signal.signal(signal.SIGINT, _interrupt_once)
    elif signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a shell gives a job in the background SIGINT as ignored, and so would every process that tests interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt_once(*_: object) -> None:
    """End a worker's test, and no more: what follows is its tidying up, which others would interrupt after five seconds."""
    # a function, for an ignored signal would be ignored by what the tidying up starts
    signal.signal(signal.SIGINT, lambda *_: None)
    raise KeyboardInterrupt


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    """Remember a worker that has started."""
    node.config.stash[_WORKERS].append(node)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """After an interrupt let the workers stop what their tests have started, before they are ended."""
    if exitstatus != pytest.ExitCode.INTERRUPTED:
        return
    workers = session.config.stash[_WORKERS]
    for worker in workers:
        with suppress(ProcessLookupError):
            # from a terminal it has got the signal already, and does not mind another; xdist keeps rinfo for plugins
            os.kill(worker.gateway._rinfo().pid, signal.SIGINT)
    end = time.monotonic() + _TIDYING_S
    for worker in workers:
        with suppress(worker.channel.TimeoutError, worker.channel.RemoteError, EOFError):
            worker.channel.waitclose(max(0.0, end - time.monotonic()))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give workers what may last long first, so that none is left with it at the end; files stay whole.

    How long a test may last is what its mark ``timeout`` says. With ``--dist loadgroup`` a test is in its file's group
    unless a mark ``xdist_group`` says another.
    """
    if not hasattr(config, "workerinput"):
        return
    groups: dict[pytest.Item, str] = {}
    patience: Counter[str] = Counter()
    for item in items:
        mark = item.get_closest_marker("xdist_group")
        if mark is None and config.getoption("loadgroup", False):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        groups[item] = str(item.path if mark is None else mark.args[0])
        if limit := item.get_closest_marker("timeout"):
            patience[groups[item]] += limit.args[0]
    items.sort(key=lambda item: -patience[groups[item]])
