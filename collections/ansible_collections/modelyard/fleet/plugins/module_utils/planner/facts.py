"""Settings and observations as plain data -> hosts and replicas of the planner."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.adoption import see_adopted
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.devices import Devices, read_devices
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    ABSENT,
    FORESEEN,
    UNKNOWN,
    UP,
    Adopted,
    Adoption,
    Current,
    Host,
)

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """One host with what is on it, as far as it answered, remarks worth showing, and what keeps a wish from being met."""

    host: Host
    current: tuple[Current, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def see(
    name: str,
    settings: Mapping[str, Any],
    facts: Facts | None,
    remembered: Iterable[Mapping[str, Any]],
    *,
    runtimes: Collection[str],
    adoptions: Iterable[Adoption] = (),
) -> Seen:
    """Put one host together.

    ``settings`` are its ``fleet_*`` values with defaults filled in, ``facts`` the result of ``fleet_facts``
    or None when the host did not answer, ``remembered`` the assignments of the last deploy on this host.
    A runtime of
    ``runtimes`` (those that matter here) that does not answer makes the whole host unknown. ``adoptions`` are the
    containers that models adopt on this host.
    """
    before = tuple(_remembered(item) for item in remembered)
    notes = [f"{name}: {note}" for note in (facts or {}).get("problems", ())]
    silent = [
        runtime
        for runtime in ("docker", "process")
        if (facts or {}).get(runtime) == UNKNOWN
        and (runtime in runtimes or any(item.runtime == runtime for item in before))
    ]
    if facts is None or silent:
        if silent:
            notes.append(
                f"{name}: {' and '.join(silent)} does not answer, "
                "so the host counts as unknown and is left as it is"
            )
        declared = Devices(_declared_gpus(settings["fleet_gpus"]))
        return Seen(_host(name, settings, None, UNKNOWN, declared), before, tuple(notes))

    if facts.get("docker") == FORESEEN:
        notes.append(f"{name}: gets its container engine by this run, and is planned as if it had it")
    devices = read_devices(_declared_gpus(settings["fleet_gpus"]), facts, settings)
    host = _host(name, settings, facts, UP, devices)
    observed = tuple(_observed(name, item) for item in facts.get("replicas", ()))
    adopted, problems, remarks = see_adopted(
        host, facts, adoptions, before, {item.replica: item for item in observed}
    )
    own = {item.replica for item in adopted}
    observed = (*(item for item in observed if item.replica not in own), *adopted)
    notes += remarks
    seen_ids = {item.replica for item in observed}
    gone = tuple(
        Current(**{**_fields(item), "state": ABSENT}) for item in before if item.replica not in seen_ids
    )
    if devices.missing:
        count = len(_declared_gpus(settings["fleet_gpus"]))
        notes.append(f"{name}: {count} GPUs declared, {count - devices.missing} of them found")
    notes += _unwell(host, observed)
    return Seen(host, observed + gone, tuple(notes), tuple(problems))


def _unwell(host: Host, observed: Iterable[Current]) -> list[str]:
    """GPUs that nobody new gets, and what runs on those that are not well: it stays until the operator moves it."""
    notes = [
        f"{host.name}: GPU {gpu} is given to no new replica, since {why}"
        for gpu, why in host.unwell_gpus.items()
    ]
    for item in observed:
        bad = [gpu for gpu in item.gpus if host.health_of(gpu) != UP]
        if bad and item.state == UP:
            told = " and ".join(f"GPU {gpu} is {host.health_of(gpu)}" for gpu in bad)
            notes.append(
                f"{host.name}: {item.replica} runs on a GPU that is not known to be well ({told}) and is left there; "
                "`modelyard doctor` says what to do"
            )
    return notes


def _host(name: str, settings: Mapping[str, Any], facts: Facts | None, state: str, seen: Devices) -> Host:
    first, _, last = str(settings["fleet_ports"]).partition("-")
    user_home = (facts or {}).get("user_home") or "~"

    def path(key: str) -> str:
        value = str(settings[key])
        return user_home.rstrip("/") + value[1:] if value.startswith("~/") else value

    alias = {device["uuid"]: str(device["index"]) for device in (facts or {}).get("gpus", ())}
    blocked = _blocked(seen.gpus, facts or {}, alias)
    return Host(
        name=name,
        state=state,
        runtime=settings["fleet_runtime"],
        accelerator=settings["fleet_accelerator"],
        gpus=seen.gpus,
        gpu_mode=settings["fleet_gpu_mode"],
        address=str(settings["fleet_address"]),
        first_port=int(first),
        last_port=int(last),
        home=path("fleet_home"),
        weights_dir=path("fleet_weights_dir"),
        cache_dir=path("fleet_cache_dir"),
        volumes_dir=path("fleet_volumes_dir"),
        python=path("fleet_python"),
        images=settings["fleet_images"],
        container_user=settings["fleet_container_user"],
        ulimits=settings["fleet_container_ulimits"],
        read_only=settings["fleet_container_read_only"],
        log_max_size=settings["fleet_log_max_size"],
        log_max_files=settings["fleet_log_max_files"],
        blocked_gpus=blocked,
        unwell_gpus=seen.unwell,
        devices=seen.known,
        gpu_groups=seen.groups,
        gpu_links=seen.links,
        listening=frozenset(int(port) for port in (facts or {}).get("listening_ports", ())),
        docker=(facts or {}).get("docker", UNKNOWN),
    )


def _declared_gpus(value: int | list[int | str]) -> tuple[str, ...]:
    if isinstance(value, int):
        return tuple(str(number) for number in range(value))
    return tuple(str(item) for item in value)


def _blocked(gpus: tuple[str, ...], facts: Facts, alias: Mapping[str, str]) -> dict[str, str]:
    """Which of our GPUs somebody else uses. ``all`` is every GPU; indexes and UUIDs mean the same."""
    used: dict[str, str] = {}
    for thing in facts.get("foreign", ()):
        for gpu in thing.get("gpus", ()):
            used[str(gpu)] = thing["name"]
    for device in facts.get("gpus", ()):
        if device.get("foreign_processes"):
            used[str(device["index"])] = "process " + ", ".join(map(str, device["foreign_processes"]))
    everywhere = used.pop("all", None)
    for name, who in tuple(used.items()):
        if name in alias:
            used[alias[name]] = who
    found = {}
    for gpu in gpus:
        holder = used.get(gpu) or used.get(alias.get(gpu, "")) or everywhere
        if holder:
            found[gpu] = holder
    return found


def _observed(host: str, item: Mapping[str, Any]) -> Current:
    return Current(
        replica=item["replica"],
        model=item["model"],
        host=host,
        index=_index(item["replica"]),
        state=item["state"],
        gpus=tuple(str(gpu) for gpu in item.get("gpus") or ()),
        port=item.get("port"),
        runtime=item["runtime"],
        engine=(item.get("spec") or {}).get("engine", ""),
        hash=item.get("hash"),
        spec=item.get("spec") or {},
        lost=item.get("lost", ""),
    )


def _remembered(item: Mapping[str, Any]) -> Current:
    return Current(
        replica=item["replica"],
        model=item["model"],
        host=item["host"],
        index=int(item["index"]),
        state=UNKNOWN,
        gpus=tuple(str(gpu) for gpu in item["gpus"]),
        port=item["port"],
        runtime=item["runtime"],
        engine=item["engine"],
        hash=item["hash"],
        spec=item["spec"],
        weights=item.get("weights"),
        adopted=Adopted(**item["adopted"]) if item.get("adopted") else None,
    )


def _fields(item: Current) -> dict[str, Any]:
    return {name: getattr(item, name) for name in Current.__slots__}


def _index(replica: str) -> int:
    """The number at the end of a replica id; labels that somebody else wrote may lack it."""
    last = replica.rpartition(".")[2]
    return int(last) if last.isdigit() else 0
