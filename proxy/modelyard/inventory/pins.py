"""Checks of the places that models name for their replicas (``placement.pin``)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from modelyard.inventory.problems import KeyPath, Problem, nearest
from modelyard.inventory.source import mapping


def check_pins(models: Sequence[tuple[int, Mapping[str, Any]]]) -> Iterator[Problem]:
    """What is wrong with the pins by themselves, without knowing the hosts."""
    owners: dict[tuple[str, str], str] = {}
    for at, model in models:
        placement = mapping(model.get("placement"))
        pins, name = _pins(placement), str(model.get("id"))
        replicas, wanted = placement.get("replicas", 1), placement.get("gpus", 1)
        if isinstance(replicas, int) and len(pins) > replicas > 0:
            yield Problem(
                "pinned-too-many",
                f"{len(pins)} places are pinned, and {replicas} replica{'s are' if replicas > 1 else ' is'} wished.",
                ("models", at, "placement", "pin"),
                "Raise placement.replicas, or take places out.",
                model=name,
            )
        for number, (host, gpus) in enumerate(pins):
            path: KeyPath = ("models", at, "placement", "pin", number, "gpus")
            if isinstance(wanted, int) and len(set(gpus)) != wanted:
                yield Problem(
                    "pinned-gpus",
                    f"names {len(set(gpus))} GPU{'s' if len(set(gpus)) != 1 else ''}, and a replica has {wanted} "
                    "(placement.gpus).",
                    path,
                    "Name as many GPUs as placement.gpus says.",
                    model=name,
                )
            for gpu in sorted(set(gpus)):
                if (host, gpu) in owners:
                    yield Problem(
                        "pinned-twice",
                        f"GPU {gpu} of {host} is already pinned by model {owners[host, gpu]}.",
                        path,
                        "A GPU has one replica of one model.",
                        model=name,
                    )
                owners.setdefault((host, gpu), name)


def check_pinned_hosts(
    at: int, model: Mapping[str, Any], declared: Mapping[str, Any], names: Collection[str]
) -> Iterator[Problem]:
    """Pins to hosts that are not the model's, or to GPUs that they do not declare.

    ``declared`` is ``fleet_gpus`` of each of the model's hosts. Which UUID an index stands for only the host knows.
    """
    for number, (host, gpus) in enumerate(_pins(model["placement"])):
        path: KeyPath = ("models", at, "placement", "pin", number)
        if host not in declared:
            known = host in names
            yield Problem(
                "pinned-elsewhere",
                f"{host} is {'not among the hosts of the model' if known else 'no host of the inventory'}.",
                (*path, "host"),
                "Name it in placement.hosts too." if known else nearest(host, names),
                model=model["id"],
            )
            continue
        value = declared[host]
        strange = [gpu for gpu in gpus if isinstance(value, int) and gpu.isdigit() and int(gpu) >= value]
        if strange:
            yield Problem(
                "pinned-no-gpu",
                f"{host} has {value} GPUs for models (fleet_gpus), and so no GPU {', '.join(strange)}.",
                (*path, "gpus"),
                "GPUs are counted from 0.",
                model=model["id"],
            )


def _pins(placement: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Host and GPUs of each pin, of whatever shape the rest is."""
    given = placement.get("pin")
    found = []
    for item in given if isinstance(given, list | tuple) else ():
        gpus = mapping(item).get("gpus")
        if isinstance(gpus, list | tuple):
            found.append((str(mapping(item).get("host")), [str(gpu) for gpu in gpus]))
    return found
