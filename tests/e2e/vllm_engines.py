"""Real vLLM engines in the outer Docker engine, on loopback, and a proxy in front of them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.catalog import load_engine
from tests.hosts.owner import LABEL, Owner
from tests.parts import tiny_model, vllm_image
from tests.parts.docker import docker

MODEL = "tiny"
_START_S = 400


@dataclass(frozen=True)
class VllmEngine:
    """One container with a real vLLM that serves the tiny model."""

    name: str
    url: str

    def is_running(self) -> bool:
        """Whether its container runs."""
        return docker("inspect", "--format", "{{.State.Status}}", self.name) == "running"

    def log(self) -> str:
        """The end of what it printed."""
        done = subprocess.run(
            ["docker", "logs", "--tail", "60", self.name], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr


@contextmanager
def vllm_engines(count: int, environment: Mapping[str, str] | None = None) -> Iterator[list[VllmEngine]]:
    """Start `count` engines at once and wait until each answers; they are removed at the end."""
    owner = Owner.current()
    with ExitStack() as stack:
        engines = [
            _start(f"modelyard-test-{owner.pid}-vllm-{n}", environment or {}, stack) for n in range(count)
        ]
        end = time.monotonic() + _START_S
        for engine in engines:
            while not answers(f"{engine.url}/v1/models"):
                if not engine.is_running() or time.monotonic() > end:
                    raise AssertionError(f"{engine.name} did not come up:\n{engine.log()}")
                time.sleep(0.5)
        yield engines


def _start(name: str, environment: Mapping[str, str], stack: ExitStack) -> VllmEngine:
    # as the roles start one on a host without GPUs
    settings = {**load_engine("vllm").data["env_accelerators"]["cpu"], **environment}
    flags = [part for key, value in settings.items() for part in ("--env", f"{key}={value}")]
    docker(
        *["run", "--detach", "--name", name, "--label", f"{LABEL}={Owner.current()}", *flags],
        *["--shm-size", "256m", "--memory", "4g", "--publish", "127.0.0.1::8000"],
        *["--volume", f"{tiny_model.directory()}:/weights:ro", vllm_image.tag(), "/weights"],
        *["--served-model-name", MODEL, "--dtype", "float32", "--max-model-len", "512"],
        *["--max-num-seqs", "32", "--enforce-eager"],
    )
    stack.callback(docker, "rm", "--force", name)
    address = docker("port", name, "8000").splitlines()[0]
    return VllmEngine(name, f"http://{address}")


@dataclass(frozen=True)
class Proxy:
    """A running `modelyard serve`."""

    url: str
    key: str

    def post(self, path: str, body: Mapping[str, Any], timeout: float = 120) -> tuple[int, Any]:
        """Status and JSON of an answer, whatever the status."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def admin(self, path: str) -> Any:
        """JSON of a management route."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)


@contextmanager
def proxy_for(
    endpoints: Sequence[Mapping[str, Any]],
    directory: Path,
    *options: str,
    model: str = MODEL,
    more: Mapping[str, Any] | None = None,
) -> Iterator[Proxy]:
    """A proxy whose registry has one model with these endpoints and the keys of ``more``; stopped at the end."""
    key = "only-for-this-test-7391-xyzt"
    (directory / "key").write_text(key)
    registry = directory / "endpoints.json"
    entry = {"endpoints": list(endpoints), **(more or {})}
    registry.write_text(json.dumps({"version": 1, "models": {model: entry}}))
    command = [
        sys.executable,
        "-m",
        "modelyard",
        "serve",
        "--registry",
        str(registry),
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(
        [*command, "--admin-key-file", str(directory / "key"), *options], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            end = time.monotonic() + 60
            while not answers(f"{url}/ready"):
                assert time.monotonic() < end, "the proxy did not become ready"
                time.sleep(0.05)
            yield Proxy(url, key)
        finally:
            process.terminate()


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
