"""Engines that were found, as models of an inventory: equal ones become replicas of one model."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import ConfigError
from modelyard.importing.found import Endpoint, Found, Instance, Vault, looks_secret, masked
from modelyard.inventory.adoption import is_secret_name, wish_digest

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - looked for, nothing binds
_CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NEWEST = "`git ls-remote https://huggingface.co/{} HEAD` shows the newest"
_MOST_REPLICAS = 10_000
_PROXY_PORTS = (8000, 8080, 8090, 9000, 18000)


@dataclass(slots=True)
class Inventory:
    """What is to be written. ``models`` with templates in the place of secrets; ``settings`` of the one host.

    ``understood`` tells what each model came from, ``todo`` what is left to do; ``registry`` are the models of an
    endpoint registry, None where no address is known.
    """

    models: list[dict[str, Any]] = field(default_factory=list)
    host: str = "localhost"
    settings: dict[str, Any] = field(default_factory=dict)
    connection: dict[str, Any] = field(default_factory=dict)
    fleet: dict[str, Any] = field(default_factory=dict)
    vault: Vault = field(default_factory=Vault)
    understood: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    registry: dict[str, Any] | None = None


def gather(found: Found, host: str, address: str | None, gpus: int | None, *, local: bool) -> Inventory:
    """An inventory of one host from everything that was found.

    ``address`` is where proxies reach the host, None where it is to be seen from what is published; ``gpus`` the
    number of its GPUs where it is known; ``local`` says that it is this machine.
    """
    made = Inventory(host=host, skipped=list(found.skipped), remarks=list(found.remarks))
    address = _address(found.instances, host, address, local=local)
    used: set[str] = set()
    names: dict[str, str] = {}
    capacity = gpus if gpus is not None else _seen_gpus(found.instances)
    left = capacity
    for group in _groups(found.instances):
        left -= _model(made, group, host, used, names, left)
    _endpoints(made, found.endpoints, used, names)
    _routing(made, found)
    _host(made, found.instances, host, address, capacity, local=local)
    if gpus is None and capacity:
        made.remarks.append(f"{host}: fleet_gpus is {capacity}, as many as were seen in use; correct it")
    made.remarks, made.skipped = masked(made.remarks), masked(made.skipped)
    return made


def _address(instances: Sequence[Instance], host: str, given: str | None, *, local: bool) -> str:
    """The host's address for proxies; who is published on another one alone cannot be adopted.

    Raises ``ConfigError`` when it is neither given nor to be seen.
    """
    bound = [item.address for item in instances if item.container and item.address not in (None, *_WILDCARDS)]
    address = given or (max(bound, key=bound.count) if bound else None) or ("127.0.0.1" if local else None)
    if address is None:
        raise ConfigError(
            f"Nothing shows under which address proxies reach {host}: give it with --address (an IP address)."
        )
    for item in instances:
        if item.container and item.address not in (None, address, *_WILDCARDS):
            item.container = None
            item.remarks.append(
                f"it listens on {item.address} alone, and proxies come to {address}: it cannot be adopted"
            )
    return address


def _seen_gpus(instances: Sequence[Instance]) -> int:
    """GPUs that must be there: the highest one that is named, or what runs at the same time in all."""
    numbers = [int(one) for item in instances for one in item.gpu_ids if one.isdigit()]
    named = {one for item in instances for one in item.gpu_ids}
    together = sum(item.gpus * item.replicas for item in instances if item.at_once and not item.gpu_ids)
    largest = max((item.gpus for item in instances), default=0)
    shared = max((item.gpus for item in instances if item.container), default=0)
    if any(item.container for item in instances):
        together = shared  # containers that run share what there is: nothing more is known
    return max([largest, together, len(named), *(number + 1 for number in numbers)])


def _groups(instances: Iterable[Instance]) -> list[list[Instance]]:
    """Instances that would be started the same way, together; in the order in which they were found."""
    groups: dict[str, list[Instance]] = {}
    for item in instances:
        same = [item.engine, item.image, item.source, item.task, item.args, item.env, item.gpus,
                item.resources, bool(item.container), item.alive, item.accelerator]  # fmt: skip
        groups.setdefault(json.dumps(same, sort_keys=True, default=str), []).append(item)
    return list(groups.values())


def slug(text: str) -> str:
    """A model's id from any name."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.rstrip("/").rpartition("/")[2].lower()).strip("-._")
    return (name or "model")[:50].rstrip("-._") or "model"


def _unique(text: str, used: set[str]) -> str:
    name, number = slug(text), 2
    base = name
    while name in used:
        name, number = f"{base}-{number}", number + 1
    used.add(name)
    return name


def _model(
    made: Inventory, group: list[Instance], host: str, used: set[str], names: dict[str, str], left: int
) -> int:
    """Append the model of a group; return how many GPUs it takes of those that are left."""
    first = group[0]
    identity = _unique(next(iter(first.served), first.name), used)
    origins = ", ".join(item.origin for item in group)
    remarks = list(dict.fromkeys(f"{item.origin}: {remark}" for item in group for remark in item.remarks))
    if first.source is None:
        made.skipped.append(
            f"{origins}: {first.remarks[-1] if first.remarks else 'its weights are not known'}"
        )
        used.discard(identity)
        return 0
    model: dict[str, Any] = {"id": identity}
    if first.task != "generate":
        model["task"] = first.task
    model.update(source=dict(first.source), engine=first.engine)
    if first.image:
        model["image"] = first.image
    wanted = min(max(sum(item.replicas for item in group), 0), _MOST_REPLICAS)
    model["placement"] = {"hosts": host, "replicas": wanted, "gpus": first.gpus}
    args = _args(made, first, remarks)
    env = _env(made, first)
    model.update({key: value for key, value in (("args", args), ("env", env)) if value})
    if first.resources:
        model["resources"] = dict(first.resources)
    _names(model, [name for item in group for name in (*item.served, *item.aliases)], used, names, remarks)
    takes = _adopt(made, model, group, host)
    if not takes:
        why = _cannot_run(model, first, left)
        if why:
            model["placement"]["replicas"] = 0
            made.todo.append(f"{identity}: {why}; then set its placement.replicas to {wanted}.")
        else:
            takes = wanted * first.gpus
    else:
        takes = 0  # what runs already has its GPUs
    made.models.append(model)
    made.understood.append(f"{identity}: {first.engine}, from {origins}")
    made.remarks += remarks
    return takes


def _cannot_run(model: Mapping[str, Any], first: Instance, left: int) -> str:
    """Why a model that does not run yet must wait; empty when it need not."""
    reasons = []
    if "hub" in model["source"] and "revision" not in model["source"]:
        hub = model["source"]["hub"]
        reasons.append(f"give source.revision, the commit to fetch: {_NEWEST.format(hub)}")
    if first.alive:
        reasons.append("its container runs and cannot be adopted, so end that one first")
    need = model["placement"]["replicas"] * model["placement"]["gpus"]
    if need > left:
        reasons.append(f"it needs {need} GPUs and {max(left, 0)} are left: make room, or add hosts")
    return ", and ".join(reasons)


def _adopt(made: Inventory, model: dict[str, Any], group: list[Instance], host: str) -> int:
    """Name the group's containers in the model, if they run; return how many."""
    entries = []
    for item in group:
        if item.container is None or not _CONTAINER.fullmatch(item.container):
            continue
        entry: dict[str, Any] = {"host": host, "container": item.container}
        if item.port:
            entry["port"] = item.port
        if item.served and item.served[0] != model["id"]:
            entry["served_name"] = item.served[0]
        entries.append(entry)
    if entries:
        # the digest is that of the rendered model: secrets count by name alone, so their templates do as well
        digest = wish_digest(model)
        model["adopt"] = [{**entry, "wish": digest} for entry in entries]
        if "hub" in model["source"] and "revision" not in model["source"]:
            made.todo.append(
                f"{model['id']}: the commit of its weights is not known. It is needed before a replica is started "
                f"anew: {_NEWEST.format(model['source']['hub'])}, into source.revision."
            )
    return len(entries)


def _args(made: Inventory, first: Instance, remarks: list[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in first.args.items():
        if is_secret_name(name) and isinstance(value, str | list):
            many = value if isinstance(value, list) else [value]
            hidden = [made.vault.reference(name, str(item), first.origin) for item in many]
            kept[name] = hidden if isinstance(value, list) else hidden[0]
        elif looks_secret(json.dumps(value)):
            remarks.append(
                f"{first.origin}: --{name} is left out: its value looks like a secret; add it by hand"
            )
        else:
            kept[name] = value
    return kept


def _env(made: Inventory, first: Instance) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in first.env.items():
        if is_secret_name(name):
            kept[name] = made.vault.reference(name, value, first.origin)
        elif looks_secret(value) or re.search(r"://[^/@\s]*:[^/@\s]*@", value):
            made.remarks.append(
                f"{first.origin}: {name} is left out: its value looks like a secret; add it by hand"
            )
        else:
            kept[name] = value
    return kept


def _names(
    model: dict[str, Any], served: Iterable[str], used: set[str], names: dict[str, str], remarks: list[str]
) -> None:
    """Keep the names that clients use now as aliases."""
    kept: list[str] = []
    for name in dict.fromkeys(served):
        if name in (model["id"], *kept):
            continue
        if not _ALIAS.fullmatch(name):
            if not name.startswith("/"):
                remarks.append(f"{model['id']}: {name!r} cannot be an alias and is left out")
        elif name in names or name in used:
            remarks.append(f"{model['id']}: the name {name} already leads to {names.get(name, name)}")
        else:
            names[name] = model["id"]
            kept.append(name)
    if kept:
        model["routing"] = {"aliases": kept}


def _endpoints(made: Inventory, endpoints: Sequence[Endpoint], used: set[str], names: dict[str, str]) -> None:
    """Addresses of engines: a registry for the proxy, and models that wait for hosts of their own."""
    if not endpoints:
        return
    made.registry = {}
    by_model: dict[str, list[Endpoint]] = {}
    for item in endpoints:
        by_model.setdefault(item.model, []).append(item)
    seen: set[tuple[str, str]] = set()
    for name, items in by_model.items():
        identity = _unique(name, used)
        entry: dict[str, Any] = {"name": name[:200], "task": items[0].task, "endpoints": []}
        for number, item in enumerate(items):
            if (item.url, item.served_name) in seen:
                made.remarks.append(f"{item.origin}: {item.url} is given twice; the second one is left out")
                continue
            seen.add((item.url, item.served_name))
            entry["endpoints"].append(
                {"id": f"{identity}.{number}", "url": item.url, "engine": item.engine,
                 "served_name": item.served_name, "weight": item.weight}
            )  # fmt: skip
        remarks: list[str] = []
        holder: dict[str, Any] = {"id": identity}
        _names(holder, [name, *(alias for item in items for alias in item.aliases)], used, names, remarks)
        entry.update(holder.get("routing", {}))
        made.registry[identity] = entry
        made.remarks += remarks
        made.understood.append(f"{identity}: {len(entry['endpoints'])} addresses, from {items[0].origin}")


def _routing(made: Inventory, found: Found) -> None:
    """Aliases and fallbacks that stand apart from the models, by the names that clients use."""
    targets: dict[str, dict[str, Any]] = {}
    for identity, entry in (made.registry or {}).items():
        targets.update(dict.fromkeys((identity, entry["name"], *entry.get("aliases", ())), entry))
    ids = {id(entry): identity for identity, entry in (made.registry or {}).items()}
    for alias, name in found.aliases.items():
        if name in targets and alias not in targets and _ALIAS.fullmatch(alias):
            targets[name].setdefault("aliases", []).append(alias)
            targets[alias] = targets[name]
        else:
            made.remarks.append(
                f"the alias {alias} for {name} is left out: it leads nowhere, or is another's name"
            )
    for name, others in found.fallbacks.items():
        kept = [ids[id(targets[other])] for other in others if other in targets and other != name]
        if name in targets and kept:
            targets[name]["fallbacks"] = list(dict.fromkeys(kept))
        if name not in targets or len(kept) < len(others):
            made.remarks.append(f"fallbacks of {name} that lead to models outside of this list are left out")


def _host(
    made: Inventory,
    instances: Sequence[Instance],
    host: str,
    address: str,
    capacity: int,
    *,
    local: bool,
) -> None:
    accelerators = [item.accelerator for item in instances if item.accelerator != "cpu"]
    made.settings["fleet_accelerator"] = accelerators[0] if accelerators else "cpu"
    ids = sorted({one for item in instances for one in item.gpu_ids})
    by_name = bool(ids) and not all(one.isdigit() for one in ids)
    if accelerators:
        made.settings["fleet_gpus"] = ids if by_name and len(ids) >= capacity else capacity
    if local:
        made.connection["ansible_connection"] = "local"
    else:
        made.connection["ansible_host"] = address
    made.settings["fleet_address"] = address
    ports = {item.port for item in instances if item.port}
    free = next(port for port in (*_PROXY_PORTS, *range(20000, 30000)) if port not in ports)
    made.fleet["fleet_proxy_port"] = free
    if free != _PROXY_PORTS[0]:
        made.remarks.append(f"fleet_proxy_port is {free}: an engine has the usual {_PROXY_PORTS[0]}")
