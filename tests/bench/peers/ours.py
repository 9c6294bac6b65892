"""Modelyard's proxy as a site runs it: compiled where this machine can, metrics, health checks and accounting of requests
on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

from tests.tools.compiled import CannotCompileError, compiled_package, environment

from .base import Absent, Peer, Place


def _serve(place: Place, workers: int = 1, policy: str = "least_loaded", compiled: bool = True) -> list[str]:
    registry = place.directory / "endpoints.yml"
    endpoints = [
        {"id": f"bench.{number}", "url": url, "engine": "vllm"} for number, url in enumerate(place.urls)
    ]
    registry.write_text(
        json.dumps({"version": 1, "models": {place.model: {"policy": policy, "endpoints": endpoints}}})
    )
    serve = [*_with_package(compiled), sys.executable, "-m", "modelyard", "serve"]
    command = [*serve, "--registry", str(registry), "--port", str(place.port), "--log-level", "warning"]
    if workers == 1:
        return command
    if (
        "--workers"
        not in subprocess.run([*serve, "--help"], capture_output=True, text=True, check=True).stdout
    ):
        raise Absent("this version has no --workers")
    return [*command, "--workers", str(workers)]


def _with_package(compiled: bool) -> list[str]:
    """What makes the command run with the compiled package, where it is wished and can be had."""
    if not compiled:
        return []
    try:
        package = compiled_package()
    except CannotCompileError as exc:
        print(f"interpreted: {exc}", file=sys.stderr)
        return []
    return ["env", f"PYTHONPATH={environment(package)['PYTHONPATH']}"]


OURS = Peer("us", "Modelyard", _serve)
OURS_INTERPRETED = Peer("us-interpreted", "Modelyard, interpreted", partial(_serve, compiled=False))
OURS_PREFIX = Peer("us-prefix", "Modelyard, prefix_hash", partial(_serve, policy="prefix_hash"))
OURS_TWO_WORKERS = Peer("us-2w", "Modelyard, 2 workers", partial(_serve, workers=2))
