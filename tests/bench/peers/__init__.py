"""The systems that are measured side by side, each as somebody would run it for speed, on loopback."""

from __future__ import annotations

from .base import Absent, Peer
from .ours import OURS, OURS_INTERPRETED, OURS_PREFIX, OURS_TWO_WORKERS
from .routers import LITELLM, SGLANG_ROUTER, SGLANG_ROUTER_RR, VLLM_ROUTER, VLLM_ROUTER_RR
from .servers import HAPROXY, NGINX

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        NGINX,
        HAPROXY,
        VLLM_ROUTER,
        VLLM_ROUTER_RR,
        SGLANG_ROUTER,
        SGLANG_ROUTER_RR,
        LITELLM,
        OURS,
        OURS_INTERPRETED,
        OURS_PREFIX,
        OURS_TWO_WORKERS,
    )
}

__all__ = ["PEERS", "Absent", "Peer"]
