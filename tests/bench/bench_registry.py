"""How long a large registry takes to come into force, and what running streams notice of it.

    python -m tests.bench registry [--models 1000] [--endpoints 10000] [--json FILE]

Streams run through the proxy, and others past it, while the file is replaced. "In force" is counted from the rename of the
new file, the proxy's look at it every 0.1 s included. The longest silence of the streams that go past the proxy is what the
machine itself adds; the engine's own rhythm (10 ms) is taken off both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .load import Job, Result
from .processes import (
    EngineHandle,
    background,
    cpu_s,
    fetch,
    free_port,
    load,
    mock_engine,
    prepare,
    resident_mib,
    wait_until,
)

_INTERVAL_MS = 10.0
_STREAMS = 50
# the model whose streams run all the while; its endpoints never change
_STEADY = "bench"


class Registry:
    """A large registry in a file, written as a whole each time."""

    def __init__(self, path: Path, engine: EngineHandle, models: int, endpoints: int) -> None:
        self._path, self._engine = path, engine
        self._models, self._each = models, max(1, endpoints // models)
        self.generation = 0

    def write(self, *, host: str = "a", weight: float = 1) -> str:
        """Put the next generation in place; returns a model that only this one has.

        ``host`` is in every replica's id: another one replaces them all. ``weight`` is one endpoint's.
        """
        self.generation += 1
        mark = f"mark-{self.generation}"
        ports = self._engine.ports
        models: dict[str, Any] = {
            _STEADY: {"endpoints": [self._endpoint(f"steady.{port}", port, "steady") for port in ports]},
            mark: {"endpoints": [self._endpoint(mark, ports[0], mark)]},
        }
        for model in range(self._models - 2):
            models[f"model-{model:04}"] = {
                "aliases": [f"org/model-{model:04}"],
                "endpoints": [
                    self._endpoint(f"{host}.model-{model:04}.{at}", ports[at % len(ports)], f"{model}/{at}")
                    for at in range(self._each)
                ],
            }
        models["model-0000"]["endpoints"][0]["weight"] = weight
        new = self._path.with_suffix(".new")
        document = {"version": 1, "generation": self.generation, "models": models}
        # as the role's module writes it
        new.write_text(json.dumps(document, indent=2, sort_keys=True))
        new.replace(self._path)
        return mark

    @staticmethod
    def _endpoint(name: str, port: int, path: str) -> dict[str, Any]:
        return {"id": name, "url": f"http://127.0.0.1:{port}/{path}", "engine": "vllm"}


class Streams(threading.Thread):
    """Streams of a fixed length, in processes of their own."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self._job = Job(
            port, _STREAMS, _STREAMS, int(seconds * 1e3 / _INTERVAL_MS), ramp_s=0.5, model=_STEADY
        )
        self._found: Result | RuntimeError = RuntimeError("the streams did not run")

    def run(self) -> None:
        try:
            self._found = load(self._job)
        except RuntimeError as exc:
            self._found = exc

    def longest_stall_ms(self) -> float:
        """Wait for the end; the longest silence beyond the engine's rhythm. Raises ``RuntimeError``."""
        self.join()
        if isinstance(self._found, RuntimeError):
            raise self._found
        return max(0.0, max(self._found.gap_s) * 1e3 - _INTERVAL_MS)


def until_calm(pid: int, limit_s: float = 120) -> None:
    """Wait until a process hardly works: until the probes of new endpoints are through."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        before = cpu_s(pid)
        time.sleep(0.5)
        if cpu_s(pid) - before < 0.05:
            return
    print(f"the proxy is still busy after {limit_s:g} s", file=sys.stderr)


def in_force(url: str, mark: str, since: float, limit_s: float = 60) -> float:
    """Seconds from ``since`` until the proxy knows the model ``mark``. Raises ``RuntimeError`` when it does not."""
    while time.monotonic() - since < limit_s:
        try:
            fetch(f"{url}/v1/models/{mark}")
        except OSError:
            time.sleep(0.005)
            continue
        return time.monotonic() - since
    raise RuntimeError(f"the new registry is not in force after {limit_s:g} s")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=8.0, help="how long the streams of one case last")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    prepare()
    results: dict[str, Any] = {"models": options.models, "endpoints": options.endpoints, "cases": {}}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-")))
        engine = stack.enter_context(mock_engine())
        engine.pace(interval_ms=_INTERVAL_MS)
        registry = Registry(directory / "endpoints.yml", engine, options.models, options.endpoints)
        mark, port = registry.write(), free_port()
        url, begun = f"http://127.0.0.1:{port}", time.monotonic()
        proxy = stack.enter_context(background(_serve(directory, port), log=directory / "log", cwd=directory))
        wait_until(lambda: _answers(url), proxy, "the proxy", 120)
        results["start_s"] = round(in_force(url, mark, begun), 3)
        until_calm(proxy.pid)

        def change(**how: Any) -> Callable[[], float]:
            def replace() -> float:
                # what writing costs is the writer's
                mark, since = registry.write(**how), time.monotonic()
                return in_force(url, mark, since)

            return replace

        def scrape() -> float:
            since = time.monotonic()
            fetch(f"{url}/metrics", timeout_s=60)
            return time.monotonic() - since

        print(f"{options.models} models, {options.endpoints} endpoints; started in {results['start_s']} s")
        print(f"  {'case':<28}{'in force s':>12}{'longest stall ms':>18}{'past the proxy ms':>19}")
        cases: list[tuple[str, Callable[[], float]]] = [
            ("nothing happens", lambda: 0.0),
            ("one endpoint changed", change(weight=2)),
            ("every endpoint replaced", change(host="b")),
            ("metrics scraped", scrape),
        ]
        for name, act in cases:
            through, past = Streams(port, options.seconds), Streams(engine.ports[0], options.seconds)
            through.start()
            past.start()
            time.sleep(2)  # so that every stream has begun, and runs on for a while before anything happens
            took = act()
            row = {
                "seconds": round(took, 3),
                "stall_ms": round(through.longest_stall_ms(), 1),
                "stall_past_ms": round(past.longest_stall_ms(), 1),
            }
            results["cases"][name] = row
            print(
                f"  {name:<28}{row['seconds']:>12}{row['stall_ms']:>18}{row['stall_past_ms']:>19}", flush=True
            )
            until_calm(proxy.pid)
        results["resident_mib"] = round(resident_mib(proxy.pid), 1)
        print(f"  resident afterwards: {results['resident_mib']} MiB")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _serve(directory: Path, port: int) -> list[str]:
    return [
        sys.executable, "-m", "modelyard", "serve", "--registry", str(directory / "endpoints.yml"),
        "--port", str(port), "--log-level", "error", "--registry-poll-s", "0.1",
        # what probing so many endpoints costs is another question
        "--probe-interval-s", "600",
    ]  # fmt: skip


def _answers(url: str) -> bool:
    try:
        fetch(f"{url}/live")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
