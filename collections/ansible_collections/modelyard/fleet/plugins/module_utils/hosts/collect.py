"""Everything that the doctor asks of a host beside its GPUs, as plain data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.hosts import (
    cdi,
    clock,
    disks,
    engine,
    listeners,
    system,
)

Facts = dict[str, Any]


def collect(
    host: Host,
    directories: Iterable[str],
    ports: Iterable[int],
    replicas: Iterable[Mapping[str, Any]],
    cdi_directories: Iterable[str] = (),
) -> Facts:
    """The facts. ``began`` and ``ended`` are the host's own time, in seconds since the epoch."""
    began = time.time()
    running = [dict(one) for one in replicas]
    docker = engine.look(host)
    own = {int(one["port"]) for one in running if one.get("port")}
    roots = [docker["root"]] if docker["root"] else []
    facts = {
        "disks": disks.look(host, [*directories, *roots]),
        "memory": system.memory(host),
        "load": system.load(host),
        "uptime_s": system.uptime(host),
        "clock": clock.synchronised(host),
        "engine": docker,
        "cdi": cdi.look(host, cdi_directories or docker["cdi_directories"] or cdi.DIRECTORIES),
        "ports": listeners.look(str(host.proc), {*ports, *own}, running),
    }
    return {**facts, "began": began, "ended": time.time()}
