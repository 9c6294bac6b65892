"""From the plan to what roles take: small pure functions that the filters of the same names expose."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS

UNCHANGED = -1


def weights_items(assignments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the role ``model_weights`` is to bring, once for replicas and models that share a directory.

    In a container the engine runs as the user of its launch spec, who must own the files; a process runs as
    whoever starts it.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in to_run(assignments):
        source, weights = item.get("source"), item.get("weights")
        if not source or not weights or item.get("adopted"):
            continue  # who adopted a container has its weights already
        kind = source["kind"]
        wanted: dict[str, Any] = {kind: source["value"]}
        if KINDS[kind].pin and source.get("checksums"):
            wanted["checksums"] = dict(source["checksums"])
        elif KINDS[kind].pin:
            wanted[KINDS[kind].pin] = source["pin"]
        user, _, group = str(item["spec"].get("user") or UNCHANGED).partition(":")
        is_file = kind == "url" and posixpath.basename(weights) == posixpath.basename(source["value"])
        destination = posixpath.dirname(weights) if is_file else weights
        found.setdefault(
            destination,
            {
                "model": item["model"],
                "source": wanted,
                "destination": destination,
                "owner": int(user),
                "group": int(group or user),
            },
        )
    return list(found.values())


def weights_in_use(facts: Mapping[str, Any], plan: Mapping[str, Any], host: str) -> list[str]:
    """Paths that the replicas of a host use, running or not: seen there, planned, or remembered of the last deploy."""
    found = {item["weights"] for item in plan["hosts"][host]["replicas"] if item.get("weights")}
    for item in facts.get("replicas") or ():
        spec = item.get("spec") or {}
        found.update(mount["source"] for mount in spec.get("mounts") or ())
        found.update(word for word in spec.get("command") or () if str(word).startswith("/"))
    return sorted(found)


def to_run(assignments: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The assignments that may be started, replaced and asked: wished, and not of unknown state.

    One of unknown state carries the redacted spec that it was seen with; it must never be started from that.
    """
    return [item for item in assignments if item["wished"] and item["observed"] != "unknown"]


def to_prove(plan: Mapping[str, Any], host: str, compared: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The assignments of a host that are still to be asked for a generation.

    ``compared`` is what ``replicas`` has found there with ``prove_s``, before anything was moved: it holds where the plan
    moves nothing.
    """
    wished = to_run(plan["hosts"][host]["replicas"])
    if plan["rollout"]["steps"]:
        return wished
    given = {row["replica"] for row in compared.get("replicas") or () if row.get("proved")}
    return [item for item in wished if item["replica"] not in given]


def holders(facts: Mapping[str, Any], assignments: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of a host's ``fleet_facts`` what tells whose a listening port is, and nothing else, as ``host_health`` takes it.

    Adopted containers have the name of the replica that they are.
    """
    keys = ("replica", "port", "pid", "container_id")
    running = [item for item in facts.get("replicas") or () if item.get("state") != "down"]
    names = {
        (item.get("adopted") or {}).get("id") or item.get("replaces"): item["replica"] for item in assignments
    }
    for item in facts.get("adopted") or ():
        own = {
            "replica": names.get(item["container_id"], item["container"]),
            "container_id": item["container_id"],
        }
        running += [own, *({**own, "port": binding["port"]} for binding in item["bindings"])]
    return [{key: item[key] for key in keys if item.get(key)} for item in running]


def without_model(models: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A registry's models, this one without endpoints; every one of them when ``model`` is empty.

    The models stay listed: the proxy then says that nothing serves them, and may use their fallbacks.
    """
    return {
        name: {**entry, "endpoints": [] if model in ("", name) else entry["endpoints"]}
        for name, entry in models.items()
    }


def stops(replicas: Iterable[Mapping[str, Any]], model: str) -> list[dict[str, str]]:
    """Observed replicas of one model (of all when ``model`` is empty) that may be stopped: not the unknown."""
    return [
        {"replica": item["replica"], "runtime": item["runtime"]}
        for item in replicas
        if model in ("", item["model"]) and item["state"] != "unknown"
    ]


def unknown_model(model: str, known: Iterable[str]) -> str:
    """What is wrong with a model's name, with the nearest right one; empty when it is known."""
    names = sorted(set(known))
    if model in names:
        return ""
    near = get_close_matches(model, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names) or 'none'}."
    return f"No model {model} is in the inventory or runs on a host that answered; {hint}"


def kept_on(plan: Mapping[str, Any], host: str) -> list[Mapping[str, Any]]:
    """The assignments of a host that stay as they are, as far as the records of what runs say."""
    kept = {change["replica"] for change in plan["changes"] if change["action"] == "keep"}
    return [item for item in plan["hosts"][host]["replicas"] if item["replica"] in kept]


def unknown_place(kind: str, name: str, plan: Mapping[str, Any]) -> str:
    """What is wrong with the name of a host, model or replica, with the nearest right one; empty when it is known."""
    known = {
        "host": list(plan["hosts"]),
        "model": list(plan["registry"]["models"]),
        "replica": [item["replica"] for item in plan["assignments"]],
    }[kind]
    if name in known:
        return ""
    near = get_close_matches(name, known, n=1)
    some = ", ".join(sorted(known)[:8])
    return f"There is no {kind} {name}; {f'did you mean {near[0]}?' if near else f'known are {some}'}"


def proxy_targets(plan: Mapping[str, Any], host: str) -> list[dict[str, Any]]:
    """One question for each model that this proxy should be able to answer, as ``replica_ready`` takes them.

    A model whose replicas are all of unknown state is left out: nothing can be promised of it.
    """
    url = plan["proxies"][host]["url"]
    targets = {}
    for item in to_run(plan["assignments"]):
        spec = item["spec"]
        targets[item["model"]] = {
            "replica": f"{item['model']} through {host}",
            "runtime": "proxy",
            "spec": {
                "url": url,
                "live_path": "/live",
                "ready_path": "/ready",
                "start_period_s": 10,
                "served_name": item["model"],
                "dialect": "openai",
                "task": spec["task"],
                "smoke": spec["smoke"],
            },
        }
    return [targets[name] for name in sorted(targets)]
