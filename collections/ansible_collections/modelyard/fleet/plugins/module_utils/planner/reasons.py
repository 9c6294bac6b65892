"""Why a model's replicas have no place, host by host and with numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.ledger import Ledger
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.pins import gib
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import UP, Host, Model

Refusal = Callable[[Model, Host], str | None]


def why_not(model: Model, placed: int, ledgers: Mapping[str, Ledger], refusal: Refusal) -> str:
    """Why only ``placed`` replicas of a model have a place; ``refusal``: see ``placement``."""
    names = sorted(set(model.hosts))
    told = [_host_reason(model, name, ledgers.get(name), refusal) for name in names[:6]]
    told += [f"and {len(names) - 6} more hosts"] if len(names) > 6 else []
    where = f"of the hosts matching {model.pattern}: {'; '.join(told)}"
    return (
        f"model {model.id}: {placed} of {model.replicas} replicas placed, each needs {_need_of(model)}; "
        f"{where if told else f'no host matches {model.pattern}'}"
    )


def _host_reason(model: Model, name: str, ledger: Ledger | None, refusal: Refusal) -> str:
    if ledger is None:
        return f"{name} is not an engine host"
    host = ledger.host
    if host.state != UP:
        return f"{name} did not answer"
    refused = refusal(model, host)
    if refused is not None:
        return f"{name} {refused}"
    return _gpus_reason(model, ledger) or f"{name} has no free port in {host.first_port}-{host.last_port}"


def _gpus_reason(model: Model, ledger: Ledger) -> str | None:
    """Why a host has too few GPUs for a replica; None when it has enough."""
    host, fitting = ledger.host, len(ledger.free_for(model))
    if fitting >= model.gpus:
        return None
    if fitting == ledger.free_gpus:
        return f"{host.name} has {ledger.free_gpus} of {len(host.gpus)} GPUs free{_lacking(host)}"
    return f"{host.name} has {_sizes(model, host)}" + (
        f", and {fitting} of those with enough are free{_lacking(host)}"
        if fitting or _any_fits(model, host)
        else ""
    )


def _need_of(model: Model) -> str:
    """What each replica needs."""
    if not model.gpus:
        return "a free port"
    gpus = f"{model.gpus} GPU{'s' if model.gpus != 1 else ''} on one host"
    if model.need.at_least is None:
        return gpus
    return f"{gpus} with about {gib(model.need.at_least)} each (by {model.need.source})"


def _any_fits(model: Model, host: Host) -> bool:
    return any(model.need.met_by(host.memory_of(gpu)) for gpu in host.gpus)


def _sizes(model: Model, host: Host) -> str:
    """The memory of its GPUs: ``44.5 GiB on each GPU``, or the smallest and the largest."""
    known = sorted({memory for gpu in host.gpus if (memory := host.memory_of(gpu)) is not None})
    if len(known) == 1:
        return f"{gib(known[0])} on each GPU"
    return f"GPUs with {gib(known[0])} to {gib(known[-1])}"


def _lacking(host: Host) -> str:
    """Why GPUs of a host are not given, in brackets; empty where there are none."""
    told = [f"{len(host.blocked_gpus)} used by others"] if host.blocked_gpus else []
    unwell = {gpu: why for gpu, why in host.unwell_gpus.items() if gpu not in host.blocked_gpus}
    told += [f"GPU {gpu} is not given: {why.rstrip('.')}" for gpu, why in list(unwell.items())[:2]]
    if len(unwell) > 2:
        told.append(f"{len(unwell) - 2} more are not given for such reasons")
    return f" ({'; '.join(told)})" if told else ""
