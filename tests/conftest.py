"""What holds for all tests, and how they are spread over workers (``pytest --numprocesses``)."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A worker runs all tests of a file, of these rooms and files together those with the same reason.
TOGETHER = {
    "tests/e2e/rolling/": "share a site",
    "tests/e2e/test_clients_on_vllm.py": "a real vLLM takes gigabytes and all cores",
    "tests/e2e/test_query_of_death.py": "a real vLLM takes gigabytes and all cores",
    "tests/e2e/test_site_over_ssh.py": "a real vLLM takes gigabytes and all cores",
    "tests/hosts/test_parts.py": "a real vLLM takes gigabytes and all cores",
    "tests/hosts/test_drift_containers.py": "say that they have the same GPUs",
    "tests/hosts/test_replicas_module.py": "say that they have the same GPUs",
}
# The tests of these have nothing in common: each goes to whoever is free.
APART = ("tests/hosts/test_molecule.py",)
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


def group(test: str) -> str:
    """Which tests one worker runs: those with the same answer to their ids."""
    file = test.partition("::")[0]
    if file in APART:
        return test
    return next((why for place, why in TOGETHER.items() if file.startswith(place)), file)


class _Scheduling(LoadScopeScheduling):
    """Groups of tests go to the workers in the order in which they stand, whole."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduling | None:
    """What ``--dist loadfile`` means here."""
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give workers what may last long first, so that none is left with it at the end.

    How long a test may last is what its mark ``timeout`` says.
    """
    if not hasattr(config, "workerinput"):
        return
    patience: Counter[str] = Counter()
    for item in items:
        if limit := item.get_closest_marker("timeout"):
            patience[group(item.nodeid)] += limit.args[0]
    items.sort(key=lambda item: -patience[group(item.nodeid)])
