"""Processes of a benchmark: start them, wait for them, account for them, end them."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .load import Job, Result

_PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare() -> None:
    """As many open files as the system gives, and every started process ended also when this one is told to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fetch(url: str, body: Mapping[str, Any] | None = None, timeout_s: float = 10) -> bytes:
    """The body of an answer with a status of 200 to 299, else ``OSError``."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        found: bytes = answer.read()
    return found


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[Any], what: str, limit_s: float
) -> None:
    """Poll until the condition holds. Raises ``RuntimeError`` when the process ends or time runs out."""
    end = time.monotonic() + limit_s
    while not condition():
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode}")
        if time.monotonic() > end:
            raise RuntimeError(f"{what} is not ready after {limit_s:g} s")
        time.sleep(0.05)


@contextmanager
def background(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with everything it starts, ended afterwards whatever happens; what it says goes to ``log``."""
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,  # Ctrl-C is ours to handle, and a group can be ended as one
        ) as process,
    ):
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes], grace_s: float = 5) -> None:
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


class EngineHandle:
    """The mock engine's process. One process behind several ports stands for several replicas."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = tuple(ports)

    def pace(self, **changes: float) -> None:
        """Set figures of ``mock_engine.Pace``."""
        fetch(f"http://127.0.0.1:{self.ports[0]}/control", changes)

    def seen(self) -> dict[str, Any]:
        """What ``mock_engine.Seen`` holds now."""
        found: dict[str, Any] = json.loads(fetch(f"http://127.0.0.1:{self.ports[0]}/control"))
        return found


@contextmanager
def mock_engine(ports: int = 3) -> Iterator[EngineHandle]:
    """The mock engine on this many ports; it ends with this process, however that ends."""
    command = [sys.executable, "-m", "tests.bench.mock_engine", "--ports", str(ports)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the mock engine did not start")
            yield EngineHandle(json.loads(line))
        finally:
            process.stdin.close()
            process.wait(10)


def load(job: Job, during: Callable[[], None] | None = None) -> Result:
    """Run a job in a process of its own, calling ``during`` a few times a second meanwhile.

    Raises ``RuntimeError`` when an answer was not as it should be.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told: str | None = json.dumps(asdict(job))
            while True:
                try:
                    out, err = process.communicate(told, timeout=0.1 if during else None)
                    break
                except subprocess.TimeoutExpired:
                    told = None
                    assert during is not None
                    during()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError(err.strip().splitlines()[-1] if err.strip() else "the clients died")
    return Result(**json.loads(out))


def tree(root: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(root: int) -> float:
    """User and system seconds so far of a process and its descendants, all threads, those that ended included.

    The processor clock of each process, by the number that ``clock_getcpuclockid(3)`` gives: it counts nanoseconds where
    /proc counts ticks of 10 ms. Processes that have ended are not in it; what is measured here keeps its processes.
    """
    total = 0.0
    for pid in tree(root):
        try:
            total += time.clock_gettime((~pid << 3) | 2)
        except OSError:  # it ended meanwhile
            continue
    return total


def resident_mib(root: int) -> float:
    """Resident memory of a process and its descendants, each one's shared pages counted once for each."""
    total = 0
    for pid in tree(root):
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total * _PAGE / 2**20
