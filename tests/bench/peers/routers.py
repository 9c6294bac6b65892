"""Gateways for language models from PyPI, with their logs down to warnings.

The Rust routers stand twice: as they are shipped, which is with affinity to cached prefixes, and turned down to
``round_robin``, which looks at nothing in a request.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial

from ..processes import free_port
from . import pypi
from .base import Peer, Place

_ALL = ["--max-concurrent-requests", "8192", "--request-timeout-secs", "600"]


_ROUND_ROBIN = ("--policy", "round_robin")


def _router(place: Place, *start: str, more: Sequence[str]) -> list[str]:
    """The two routers have one ancestor, and so most of their flags."""
    return [
        *start, "--worker-urls", *place.urls, "--host", "127.0.0.1", "--port", str(place.port),
        "--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), *_ALL, *more,
    ]  # fmt: skip


def _vllm_router(place: Place, more: Sequence[str] = ()) -> list[str]:
    return _router(place, str(pypi.binaries() / "vllm-router"), more=["--log-level", "warning", *more])


def _sglang_router(place: Place, more: Sequence[str] = ()) -> list[str]:
    python = str(pypi.binaries() / "python")
    return _router(place, python, "-m", "sglang_router.launch_router", more=["--log-level", "warn", *more])


def _litellm(place: Place) -> list[str]:
    litellm = str(pypi.binaries() / "litellm")
    models = [
        {
            "model_name": place.model,
            "litellm_params": {
                "model": f"openai/{place.model}",
                "api_base": f"{url}/v1",
                "api_key": "none",
            },
        }
        for url in place.urls
    ]
    config = place.directory / "litellm.yaml"
    config.write_text(json.dumps({"model_list": models, "litellm_settings": {"telemetry": False}}))
    return [litellm, "--config", str(config), "--host", "127.0.0.1", "--port", str(place.port)]


VLLM_ROUTER = Peer("vllm-router", "vllm-router (Rust)", _vllm_router, start_limit_s=60)
SGLANG_ROUTER = Peer("sglang-router", "sglang-router (Rust)", _sglang_router, start_limit_s=60)
VLLM_ROUTER_RR = Peer(
    "vllm-router-rr",
    "vllm-router, round_robin",
    partial(_vllm_router, more=_ROUND_ROBIN),
    start_limit_s=60,
)
SGLANG_ROUTER_RR = Peer(
    "sglang-router-rr",
    "sglang-router, round_robin",
    partial(_sglang_router, more=_ROUND_ROBIN),
    start_limit_s=60,
)
LITELLM = Peer(
    "litellm",
    "LiteLLM, 1 worker",
    _litellm,
    # nothing is looked up on the net, no line is written for a request, and no key is asked for: it stands on loopback
    env={
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    },
    share=0.05,
    start_limit_s=180,
)
