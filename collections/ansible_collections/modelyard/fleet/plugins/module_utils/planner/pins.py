"""Places that the inventory names for replicas: which replica has which, and why a place cannot be had. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.ledger import Ledger
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    ABSENT,
    UP,
    Current,
    Host,
    Model,
    Pin,
)


def resolved(pin: Pin, host: Host) -> tuple[str, ...]:
    """The pin's GPUs as ``fleet_gpus`` of the host calls them; what it does not have stays as it is written."""
    alias = {other: gpu for gpu in host.gpus if gpu in host.devices for other in host.devices[gpu].names}
    return tuple(gpu if gpu in host.gpus else alias.get(gpu, gpu) for gpu in pin.gpus)


def matched(pins: Sequence[tuple[str, tuple[str, ...]]], replicas: Sequence[Current]) -> list[Current | None]:
    """For each place (host and GPUs) the replica that has it already, else one of its host that can go there.

    Those that run come first, then those with the lowest number. No replica is named twice.
    """
    order = sorted(replicas, key=lambda one: (one.state != UP, one.state == ABSENT, one.index, one.host))
    found: list[Current | None] = [None] * len(pins)
    left = list(order)
    for exactly in (True, False):
        for at, (host, gpus) in enumerate(pins):
            for item in left if found[at] is None else ():
                same = sorted(item.gpus) == sorted(gpus)
                if item.host == host and (same if exactly else not item.fixed and not item.kept_as_it_is):
                    found[at] = item
                    left.remove(item)
                    break
    return found


def trouble(
    model: Model, pin: Pin, gpus: tuple[str, ...], ledger: Ledger | None, was: Current | None
) -> str | None:
    """Why a place cannot be had, as the end of a sentence; None when it can. ``was``: the replica that would have it."""
    if ledger is None:
        return f"{pin.host} is not an engine host"
    host = ledger.host
    if pin.host not in model.hosts:
        return f"{pin.host} does not match {model.pattern}"
    if host.state != UP:
        return f"{pin.host} did not answer"
    if len(set(gpus)) != model.gpus:
        return f"it names {', '.join(gpus)}, and placement.gpus is {model.gpus}"
    strange = [gpu for gpu in gpus if gpu not in host.gpus]
    if strange:
        return f"{pin.host} has no GPU {', '.join(strange)} in fleet_gpus ({', '.join(host.gpus) or 'none'})"
    has_it = was is not None and was.state == UP and sorted(was.gpus) == sorted(gpus)
    for gpu in gpus:
        holder = ledger.holder(gpu)
        if holder is not None and (was is None or holder != was.replica):
            return f"{holder or 'another replica'} holds GPU {gpu} of {pin.host}"
        if has_it:
            continue
        if gpu in host.blocked_gpus:
            return f"GPU {gpu} of {pin.host} is used by {host.blocked_gpus[gpu]}"
        if gpu in host.devices and not host.devices[gpu].seen:
            return f"GPU {gpu} of {pin.host} is not there: {host.devices[gpu].reason}"
    return None


def doubts(model: Model, pin: Pin, gpus: Sequence[str], host: Host) -> list[str]:
    """What would keep anybody else from these GPUs."""
    told = [
        f"model {model.id} is pinned to GPU {gpu} of {pin.host}, although {host.unwell_gpus[gpu]}"
        for gpu in gpus
        if gpu in host.unwell_gpus
    ]
    for gpu in gpus:
        memory = host.memory_of(gpu)
        if not model.need.met_by(memory):
            told.append(
                f"model {model.id} is pinned to GPU {gpu} of {pin.host}, which has {gib(memory)} and would need "
                f"{gib(model.need.at_least)} by {model.need.source}"
            )
    return told


def gib(count: int | None) -> str:
    """Bytes as GiB with one digit."""
    return "an unknown amount" if count is None else f"{count / 2**30:.1f} GiB"
