"""Whether a run that makes hosts has something to do on one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_ENGINE = "it has no container engine"
NOT_ENDED = "the run that was making it a container host did not end"
CHANGED = "container_runtime_* or the accelerator are others than it was made with"


def reason(look: Mapping[str, Any], wish: str) -> str:
    """Why the role container_runtime is to run on a host, as the end of a sentence; empty where it need not.

    ``look`` is what the module ``container_host`` saw (with a ``note``), ``wish`` the digest of what is wished now.
    A host that did not answer, and one whose engine is unknown, is left as it is. So is an engine that was installed by
    other means, for nobody said that it is ours, and one of ours that somebody has stopped.
    """
    engine = look.get("engine") or {}
    state, noted = engine.get("state", "unknown"), look.get("wish")
    if state == "absent":
        return NO_ENGINE if noted is not None or not engine.get("client") else ""
    if noted is None or state == "unknown":
        return ""
    if not noted:
        return NOT_ENDED
    return CHANGED if noted != wish and state == "up" else ""
