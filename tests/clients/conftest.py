"""Engines of both kinds and a proxy before them, each a process of its own, for real client libraries.

With MODELYARD_CLIENTS_URL the suite runs against a proxy that is there already; the environment variables
MODELYARD_CLIENTS_<NAME> then name its models (`vllm-shaped` -> VLLM_SHAPED), and what is not named is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
URL = os.environ.get("MODELYARD_CLIENTS_URL", "")
# name -> engine whose shape it has, task, options of the echo engine
MODELS = {
    "vllm-shaped": ("vllm", "generate", ("--like", "vllm")),
    "tgi-shaped": ("tgi", "generate", ("--like", "tgi")),
    "embedder": ("vllm", "embed", ("--like", "vllm")),
    "reranker": ("vllm", "rerank", ("--like", "vllm")),
    "transcriber": ("vllm", "transcribe", ("--like", "vllm")),
    "speaker": ("echo", "speech", ()),
    "slow-vllm": ("vllm", "generate", ("--like", "vllm", "--token-rate", "20")),
    "slow-tgi": ("tgi", "generate", ("--like", "tgi", "--token-rate", "20")),
}
GENERATING = ("vllm-shaped", "tgi-shaped")


@pytest.fixture(scope="session")
def proxy_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The proxy's address without a slash at the end. Its models: see ``MODELS``."""
    if URL:
        yield URL.rstrip("/")
        return
    with ExitStack() as stack:
        models = {
            name: {
                "task": task,
                "endpoints": [
                    {
                        "id": f"here.{name}.0",
                        "url": _started(stack, "echo", "--port", "0", "--model", f"served-{name}", *options),
                        "engine": engine,
                        "served_name": f"served-{name}",
                    }
                ],
            }
            for name, (engine, task, options) in MODELS.items()
        }
        registry = tmp_path_factory.mktemp("clients") / "endpoints.json"
        registry.write_text(json.dumps({"version": 1, "models": models}))
        url = _started(stack, "serve", "--port", "0", "--registry", str(registry))
        _await_models(url)
        yield url


@pytest.fixture(scope="session")
def model_named() -> Callable[[str], str]:
    """What the proxy calls the model that the suite knows by a name; skips where it has none."""

    def named(name: str) -> str:
        if not URL:
            return name
        found = os.environ.get(f"MODELYARD_CLIENTS_{name.upper().replace('-', '_')}")
        return found or pytest.skip(f"the proxy under test has no model {name!r}")

    return named


@pytest.fixture(params=GENERATING)
def model(request: pytest.FixtureRequest, model_named: Callable[[str], str]) -> str:
    """A generating model of each kind of engine, one after the other."""
    return model_named(request.param)


@pytest.fixture
def echoes() -> bool:
    """Whether the models answer with the words of the prompt, so that a text can be foretold."""
    return not URL


def _started(stack: ExitStack, *arguments: str) -> str:
    """The URL of a program of ours that is up; it is stopped with ``stack``."""
    python = os.environ.get("MODELYARD_CLIENTS_PYTHON", sys.executable)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "proxy")}
    process = stack.enter_context(
        subprocess.Popen(
            [python, "-m", "modelyard", *arguments, "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    )
    stack.callback(process.terminate)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"modelyard {' '.join(arguments)} ended at once"
    return str(json.loads(line)["url"])


def _await_models(url: str) -> None:
    limit = time.monotonic() + 60
    while True:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
            missing = [card["id"] for card in json.load(answer)["data"] if not card["available"]]
        if not missing:
            return
        assert time.monotonic() < limit, f"never available: {missing}"
        time.sleep(0.05)
