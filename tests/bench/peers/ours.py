"""Modelyard's proxy as a site runs it: metrics, health checks and accounting of requests on."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial

from .base import Absent, Peer, Place


def _serve(place: Place, workers: int = 1, policy: str = "least_loaded") -> list[str]:
    registry = place.directory / "endpoints.yml"
    endpoints = [
        {"id": f"bench.{number}", "url": url, "engine": "vllm"} for number, url in enumerate(place.urls)
    ]
    registry.write_text(
        json.dumps({"version": 1, "models": {place.model: {"policy": policy, "endpoints": endpoints}}})
    )
    serve = [sys.executable, "-m", "modelyard", "serve"]
    command = [*serve, "--registry", str(registry), "--port", str(place.port), "--log-level", "warning"]
    if workers == 1:
        return command
    if (
        "--workers"
        not in subprocess.run([*serve, "--help"], capture_output=True, text=True, check=True).stdout
    ):
        raise Absent("this version has no --workers")
    return [*command, "--workers", str(workers)]


OURS = Peer("us", "Modelyard", _serve)
OURS_PREFIX = Peer("us-prefix", "Modelyard, prefix_hash", partial(_serve, policy="prefix_hash"))
OURS_TWO_WORKERS = Peer("us-2w", "Modelyard, 2 workers", partial(_serve, workers=2))
