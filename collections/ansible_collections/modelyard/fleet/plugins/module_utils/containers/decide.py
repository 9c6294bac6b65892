"""What happens to one replica's containers: decided from what was seen, without touching anything.

A replica may have up to three containers of ours: the replica itself (``<fleet>-<replica>``), its predecessor, stopped
and kept under that name with ``.previous``, and one that a run was about to put in its place (``.next``, never started).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.compare import reason as in_words
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.config import (
    LABEL,
    NEXT,
    PREVIOUS,
    container_name,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.launch import changed_fields
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import redacted

Data = Mapping[str, Any]

_RUNS = ("running", "restarting")
_ENDED = ("created", "exited", "dead")


@dataclass(frozen=True)
class Seen:
    """A replica's containers, as inspect documents."""

    current: Data | None = None
    previous: Data | None = None
    leftovers: tuple[Data, ...] = ()
    strays: tuple[Data, ...] = ()


@dataclass(frozen=True)
class Step:
    """What happens to one replica, and why.

    ``action``: start, replace, keep, stop, put_back, discard. ``rename``: the container that is the replica has another
    name and gets its own back. ``tidy``: a previous container that runs is stopped, one that was never started removed.
    """

    replica: str
    action: str
    reason: str
    differences: list[dict[str, Any]] = field(default_factory=list)
    rename: bool = False
    tidy: bool = False

    @property
    def changes(self) -> bool:
        """Whether anything is touched."""
        return self.action != "keep" or self.rename or self.tidy


class RefusedError(Exception):
    """Why nothing may be done to a replica."""


def listed(containers: Iterable[Data], fleet: str, replica: str) -> dict[str, list[Data]]:
    """The entries of the engine's list that are of this replica: by label only, sorted by what their name says."""
    name = container_name(fleet, replica)
    kinds = {name: "current", name + PREVIOUS: "previous", name + NEXT: "leftovers"}
    found: dict[str, list[Data]] = {"current": [], "previous": [], "leftovers": [], "strays": []}
    for container in containers:
        labels = container.get("Labels") or {}
        if labels.get(f"{LABEL}.fleet") == fleet and labels.get(f"{LABEL}.replica") == replica:
            found[next((kinds[one] for one in names(container) if one in kinds), "strays")].append(container)
    return found


def names(container: Data) -> list[str]:
    """The names of an entry of the engine's list."""
    return [name.lstrip("/") for name in container.get("Names") or []]


def conflicts(containers: Iterable[Data], fleet: str, replicas: Iterable[str]) -> list[str]:
    """A sentence for each container of somebody else that has a name which is ours to give."""
    wanted = {
        container_name(fleet, replica) + ending: replica
        for replica in replicas
        for ending in ("", PREVIOUS, NEXT)
    }
    found = []
    for container in containers:
        labels = container.get("Labels") or {}
        for name in names(container):
            replica = wanted.get(name)
            mine = labels.get(f"{LABEL}.fleet") == fleet and labels.get(f"{LABEL}.replica") == replica
            if replica is not None and not mine:
                found.append(
                    f"a container named {name} (image {container.get('Image')}) exists and is not ours: "
                    "remove or rename it"
                )
    return found


def status(container: Data) -> str:
    """Docker's word for the state of an inspected container."""
    return str((container.get("State") or {}).get("Status") or "unknown")


def runs(container: Data | None) -> bool:
    """Whether an inspected container runs or is about to."""
    return container is not None and status(container) in _RUNS


def grace_s(container: Data, default: int) -> int:
    """Seconds between the two signals that stop a container: as it was started with."""
    config = container.get("Config") or {}
    try:
        return int(json.loads((config.get("Labels") or {}).get(f"{LABEL}.spec") or "{}")["stop_timeout_s"])
    except (ValueError, KeyError, TypeError):
        return int(config.get("StopTimeout") or default)


def untouchable(seen: Seen) -> str | None:
    """Why a replica is left alone: somebody paused one of its containers, or its state is not known."""
    for container in (seen.current, seen.previous, *seen.leftovers, *seen.strays):
        if container is not None and status(container) not in (*_RUNS, *_ENDED):
            name = str(container.get("Name", "")).lstrip("/")
            return f"{name} is {status(container)}: left alone, as nothing is known of what is wanted of it"
    return None


def settled(seen: Seen) -> Seen:
    """The same with the replica found: a run that was cut off may have left it under another name."""
    if seen.current is None and len(seen.strays) == 1:
        return Seen(seen.strays[0], seen.previous, seen.leftovers)
    if seen.current is None and not seen.strays and runs(seen.previous):
        return Seen(seen.previous, None, seen.leftovers)
    return seen


def applied(assignment: Data, seen: Seen, name: str, differences: list[dict[str, Any]] | None) -> Step:
    """The step towards what is wished. ``differences``: those of ``seen.current``, None when there is none.

    Raises ``RefusedError``.
    """
    replica = assignment["replica"]
    if seen.strays:
        others = ", ".join(str(one.get("Name", "")).lstrip("/") for one in seen.strays)
        raise RefusedError(f"{others} carries the label of {replica} too: remove one of them")
    current = seen.current
    if current is None or differences is None:
        return Step(replica, "start", "is not there yet")
    rename = str(current.get("Name", "")).lstrip("/") != name
    tidy = runs(seen.previous) or bool(seen.leftovers)
    recorded = ((current.get("Config") or {}).get("Labels") or {}).get
    if recorded(f"{LABEL}.hash") != assignment["hash"]:
        why = changed_fields(recorded(f"{LABEL}.spec"), redacted(assignment["spec"]))
        derived = (f"labels.{LABEL}.hash", f"labels.{LABEL}.spec")
        told = [one for one in differences if one["field"] not in derived]
        return Step(replica, "replace", why, told, rename, tidy)
    if differences:
        why = f"differs from the wish: {in_words(differences)}"
        return Step(replica, "replace", why, differences, rename, tidy)
    if not runs(current):
        code = (current.get("State") or {}).get("ExitCode")
        ended = f" (exit code {code})" if status(current) == "exited" else ""
        action = "replace" if status(current) == "dead" else "start"
        return Step(replica, action, f"was {status(current)}{ended}", [], rename, tidy)
    remarks = ["gets its name back"] if rename else []
    remarks += ["what an earlier run left beside it goes"] if tidy else []
    return Step(replica, "keep", "; ".join(["runs as wished", *remarks]), [], rename, tidy)


def claims(spec: Data) -> set[str]:
    """What only one replica of a host can have: ``GPU 0``, ``port 8100``."""
    port = (spec.get("publish") or {}).get("port")
    return {f"GPU {gpu}" for gpu in spec.get("gpus") or []} | ({f"port {port}"} if port else set())


def held(containers: Iterable[Data], fleet: str) -> dict[str, set[str]]:
    """What the running containers of the fleet hold, by replica; from entries of the engine's list."""
    found: dict[str, set[str]] = {}
    for container in containers:
        labels = container.get("Labels") or {}
        if labels.get(f"{LABEL}.fleet") != fleet or container.get("State") in _ENDED:
            continue
        try:
            spec = json.loads(labels.get(f"{LABEL}.spec") or "{}")
        except ValueError:
            continue
        found.setdefault(labels.get(f"{LABEL}.replica", ""), set()).update(claims(spec))
    return found


def put_back(replica: str, seen: Seen, name: str, wished: str) -> Step:
    """The step back to the container that was kept. ``wished`` is the hash of what was to replace it."""
    if seen.previous is not None:
        return Step(replica, "put_back", "the container that was kept takes its place again")
    if seen.current is not None and halted(seen.current, wished):
        return Step(replica, "put_back", "was to be replaced and was not: goes on as it is")
    if seen.current is not None and str(seen.current.get("Name", "")).lstrip("/") != name:
        return Step(replica, "put_back", "gets its name back", rename=True)
    return Step(replica, "keep", "nothing was kept that could be put back")


def halted(container: Mapping[str, Any], wished: str) -> bool:
    """Whether it is what was to be replaced, and a run that failed was about to stop it, or has: see ``_halt``."""
    labels = (container.get("Config") or {}).get("Labels") or {}
    policy = ((container.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name")
    return labels.get(f"{LABEL}.hash") != wished and policy in ("no", "", None)


def confirmed(replica: str, seen: Seen) -> Step:
    """The step that makes a replacement final."""
    if seen.previous is None:
        return Step(replica, "keep", "nothing was kept")
    if not runs(seen.current):
        return Step(replica, "keep", "does not run, so the previous container is kept")
    return Step(replica, "discard", "the previous container is no longer needed")


def stopped(replica: str, seen: Seen) -> Step:
    """The step to no container at all."""
    if (seen.current, seen.previous, seen.leftovers, seen.strays) == (None, None, (), ()):
        return Step(replica, "keep", "is not there")
    return Step(replica, "stop", "is no longer wanted here")


def repository_digest(reference: str, image: Mapping[str, Any] | None) -> str | None:
    """The image as a reference by digest, which any host can pull; None where its registry is not known to have it."""
    repository = reference.partition("@")[0]
    name, colon, tag = repository.rpartition(":")
    if colon and "/" not in tag:
        repository = name
    known = [str(digest) for digest in (image or {}).get("RepoDigests") or []]
    short = repository.rpartition("docker.io/")[2]
    mine = [digest for digest in known if digest.partition("@")[0] in (repository, short, f"library/{short}")]
    return mine[0] if mine else None
