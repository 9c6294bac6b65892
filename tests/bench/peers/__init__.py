"""The systems that are measured side by side, each as somebody would run it for speed, on loopback."""

from __future__ import annotations

from .base import Absent, Peer
from .ours import OURS, OURS_TWO_WORKERS
from .routers import LITELLM, SGLANG_ROUTER, VLLM_ROUTER
from .servers import HAPROXY, NGINX

PEERS: dict[str, Peer] = {
    peer.name: peer for peer in (NGINX, HAPROXY, VLLM_ROUTER, SGLANG_ROUTER, LITELLM, OURS, OURS_TWO_WORKERS)
}

__all__ = ["PEERS", "Absent", "Peer"]
