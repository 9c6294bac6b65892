"""Containers that were started by other means: left as they are while adopted, stopped when a replica takes over.

They are never removed: whoever started one finds it again, stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.engine import Engine, MissingError


def left_as_it_is(engine: Engine, assignment: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an assignment that an adopted container fulfils. Raises ``MissingError`` when it is gone."""
    adopted = assignment["adopted"]
    return {
        "reason": f"adopted: container {adopted['container']}",
        "image_id": engine.inspect(adopted["id"])["Image"],
    }


def stand_down(engine: Engine, identity: str, default_s: int) -> bool:
    """Stop an adopted container and see to it that it stays stopped; whether it ran. Fine when it is gone.

    A container that starts ``always`` would come back with the engine; ``unless-stopped`` does not, and is the
    same for one that its owner starts again.
    """
    try:
        container = engine.inspect(identity)
    except MissingError:
        return False
    name = str(container.get("Name", "")).lstrip("/")
    policy = ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name")
    state = container.get("State") or {}
    if policy == "always":
        engine.set_restart(identity, name, "unless-stopped")
    if not (state.get("Running") or state.get("Restarting")):
        return False
    own = (container.get("Config") or {}).get("StopTimeout")
    # ten seconds are Docker's default, and too few for an engine that lets requests end
    engine.stop(identity, name, max(int(own or 0), default_s))
    return True
