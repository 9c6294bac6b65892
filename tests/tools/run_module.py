"""Run a module as Ansible does on a host, and end ``replicas`` in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_MODULES = "ansible_collections.modelyard.fleet.plugins.modules"
MODULE = f"{_MODULES}.replicas"
COLLECTIONS = Path(__file__).resolve().parents[2] / "collections"
"""Where Python finds modules by their full names."""
SECRET = "secret-value"
"""What assignments of tests have in their environments, and what must be in no result."""


def _arguments(params: dict[str, Any], check: bool) -> str:
    return json.dumps(
        {"ANSIBLE_MODULE_ARGS": {**params, "_ansible_check_mode": check, "_ansible_diff": True}}
    )


def run_module(
    name: str, params: dict[str, Any], check: bool = False, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The result of one of our modules, failed or not; no secret is in it. ``environment`` is added to ours."""
    done = subprocess.run(
        [sys.executable, "-m", f"{_MODULES}.{name}"],
        input=_arguments(params, check),
        capture_output=True,
        text=True,
        check=False,
        cwd=COLLECTIONS,
        env={**os.environ, **(environment or {})},
    )
    assert SECRET not in done.stdout + done.stderr
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def run_replicas(params: dict[str, Any], check: bool = False) -> dict[str, Any]:
    """The result of the module ``replicas``, failed or not; no secret is in it."""
    return run_module("replicas", params, check)


def kill_replicas(params: dict[str, Any], delay_s: float) -> None:
    """Run the module and end it without a warning after so many seconds."""
    with subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=COLLECTIONS,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(_arguments(params, False))
        process.stdin.close()
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)


def told(result: dict[str, Any], *keys: str) -> list[tuple[Any, ...]]:
    """Action and these keys of each replica of a result that did not fail."""
    assert not result.get("failed"), result
    return [tuple(one[key] for key in ("action", *keys)) for one in result["replicas"]]


def foreseen_and_done(params: dict[str, Any], between: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Run in check mode, then in earnest: the same actions for the same reasons, whether it fails or not."""
    foreseen = run_replicas(params, check=True)
    between()
    happened = run_replicas(params)
    same = ("replica", "action", "reason", "changed", "differences", "error")
    assert [[one[key] for key in same] for one in foreseen["replicas"]] == [
        [one[key] for key in same] for one in happened["replicas"]
    ]
    assert foreseen.get("diff") == happened.get("diff")
    assert foreseen.get("msg") == happened.get("msg")
    return happened
