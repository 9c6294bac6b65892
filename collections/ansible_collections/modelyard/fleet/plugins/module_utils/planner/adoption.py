"""Containers that were started by other means and are kept as replicas, without a restart.

The inventory names them. One that runs, and whose wish is unchanged since it was named, is the replica as it is: with
its own port, address and GPUs. Any other is replaced, and then stopped but never removed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.observe.adopted import EVERYWHERE
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import (
    DOWN,
    UP,
    Adopted,
    Adoption,
    Current,
    Host,
    replica_id,
)

Facts = Mapping[str, Any]


def see_adopted(
    host: Host,
    facts: Facts,
    adoptions: Iterable[Adoption],
    before: Iterable[Current],
    taken: Mapping[str, Current],
) -> tuple[list[Current], list[str], list[str]]:
    """Adopted containers of a host that answered, as replicas; what is wrong with them; and remarks.

    ``adoptions`` are the inventory's of this host, ``before`` what the last deploy applied, ``taken`` the
    replicas that were seen, by id: a container whose place one of them has taken is adopted no more. One whose successor
    does not run although it does itself belongs to a change that was cut off: the successor comes back with it.
    """
    seen = {item["container"]: item for item in facts.get("adopted", ())}
    seen.update({item["container_id"]: item for item in facts.get("adopted", ())})
    remembered = {item.replica: item for item in before if item.adopted is not None}
    found: dict[str, Current] = {}
    problems: list[str] = []
    notes: list[str] = []
    for wish in adoptions:
        replica = replica_id(host.name, wish.model, wish.index)
        past = remembered.get(replica)
        item = seen.get(wish.container) or (past and past.adopted and seen.get(past.adopted.id))
        heir = taken.get(replica)
        if heir is not None:
            if item and item["state"] == UP and heir.state == DOWN:
                given_up = Adopted(wish.container, item["container_id"], wish.served_name, accepted=False)
                found[replica] = replace(heir, adopted=given_up)
            elif item and item["state"] == UP:
                notes.append(
                    f"{host.name}: container {wish.container} runs beside {replica}, which took its place"
                )
            continue
        if not item:
            notes.append(
                f"{host.name}: there is no container {wish.container} to adopt; a replica is started instead"
            )
            continue
        port, trouble = _reached(item, wish, host)
        if trouble:
            problems.append(f"{host.name}: container {wish.container} cannot be adopted: {trouble}")
        adopted = Adopted(
            wish.container, item["container_id"], wish.served_name, wish.accepted and not trouble
        )
        found[replica] = _current(
            host, item, replica, wish.model, wish.index, port, adopted, facts, wish.engine
        )
    ids = {one.adopted.id for one in found.values() if one.adopted}
    for replica, past in remembered.items():
        was = past.adopted
        item = seen.get(was.id) if was else None
        if replica in taken or replica in found or not item or not was or was.id in ids:
            continue
        # deployed as adopted, and no longer named: it goes like any other replica
        given_up = replace(was, accepted=False, named=False)
        found[replica] = _current(
            host, item, replica, past.model, past.index, past.port, given_up, facts, past.engine
        )
    return list(found.values()), problems, notes


def _current(
    host: Host,
    item: Facts,
    replica: str,
    model: str,
    index: int,
    port: int | None,
    adopted: Adopted,
    facts: Facts,
    engine: str,
) -> Current:
    return Current(
        replica=replica,
        model=model,
        host=host.name,
        index=index,
        state=item["state"],
        gpus=_gpus(item.get("gpus") or (), host, facts),
        port=port,
        engine=engine,
        adopted=adopted,
    )


def _gpus(names: Iterable[str], host: Host, facts: Facts) -> tuple[str, ...]:
    """The container's GPUs as the host calls them; ``all`` is every one."""
    alias: dict[str, str] = {}
    for device in facts.get("gpus", ()):
        uuid, number = device["uuid"], str(device["index"])
        alias.update({uuid: number, number: uuid})
    wanted = {str(name) for name in names}
    if "all" in wanted:
        return host.gpus
    return tuple(gpu for gpu in host.gpus if gpu in wanted or alias.get(gpu) in wanted)


def _reached(item: Facts, wish: Adoption, host: Host) -> tuple[int | None, str]:
    """The port under which proxies reach a container at the host's address; or why they do not."""
    bindings = [one for one in item.get("bindings", ()) if wish.port in (None, one["port"])]
    if item.get("host_network"):
        return wish.port, "" if wish.port else "it uses the host's network: give adopt[].port"
    if item["state"] != UP and not bindings:
        return wish.port, ""  # it will be replaced, wherever it was
    if not bindings:
        return None, f"it does not publish port {wish.port}" if wish.port else "it publishes no port"
    ports = {one["port"] for one in bindings}
    if len(ports) > 1:
        return None, f"it publishes ports {', '.join(map(str, sorted(ports)))}: give adopt[].port"
    port = ports.pop()
    addresses = {one["address"] for one in bindings}
    if any(_covers(address, host.address) for address in addresses):
        return port, ""
    return port, (
        f"it listens on {', '.join(sorted(addresses))} alone, and proxies come to {host.address} (fleet_address)"
    )


def _covers(bound: str, wanted: str) -> bool:
    if bound in EVERYWHERE:
        return True
    try:
        return ipaddress.ip_address(bound) == ipaddress.ip_address(wanted)
    except ValueError:
        return bound == wanted


def why_replaced(was: Current) -> str:
    """Why an adopted container does not stay."""
    name = was.adopted.container if was.adopted else ""
    if was.lost:
        return was.lost
    if was.adopted and not was.adopted.named:
        return f"container {name} is no longer adopted"
    if was.state != UP:
        return f"the adopted container {name} does not run"
    return f"the wish has changed since container {name} was adopted"
