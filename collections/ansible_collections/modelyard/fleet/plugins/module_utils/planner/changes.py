"""Wish against reality: what would start, stop, be replaced or stay, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.adoption import why_replaced
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import from_flags
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import UP, Current, Model, Slot

# What follows from the replica's name or from another difference, and would only repeat it.
_DERIVED = {"replica", "model", "url", "served_name", "mounts"}
_LONGEST_VALUE = 60
_MOST_REASONS = 6


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the plan. ``action`` is start, stop, replace, keep or unknown."""

    action: str
    replica: str
    model: str
    host: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


def change_of_slot(
    slot: Slot,
    new_hash: str | None,
    new_spec: Mapping[str, Any],
    stopped: Current | None,
) -> Change:
    """What happens to one slot. ``new_spec`` is redacted; ``stopped``: dropped under the same id."""
    was = slot.was or stopped
    if was is not None and was.fixed:
        why = f"state unknown on {slot.host}, left as it is"
        if not slot.wished:
            why += "; no longer wished, to be stopped once its state is known"
        return _change("unknown", slot, why)
    if was is None:
        return _change("start", slot, _holding(slot))
    if was.adopted is not None:
        if was.kept_as_it_is and stopped is None:
            return _change("keep", slot, f"adopted: container {was.adopted.container}")
        return _change("replace", slot, why_replaced(was))
    if was.hash != new_hash or stopped is not None:
        return _change("replace", slot, difference(was.spec, new_spec))
    if was.state == UP and was.lost:
        return _change("replace", slot, was.lost)
    if was.state == UP:
        return _change("keep", slot, "up")
    return _change("start", slot, "down")


def change_of_dropped(replica: Current, model: Model | None, existing: int) -> Change:
    """Why a replica stops. ``model`` is its wish, if there is one; ``existing`` how many of its replicas there are."""
    if model is None:
        reason = f"model {replica.model} is no longer in the inventory"
    elif replica.host not in model.hosts:
        reason = f"{replica.host} does not match {model.pattern}"
    elif existing > model.replicas:
        reason = f"{model.replicas} wished, {existing} there"
    else:
        reason = "its place no longer fits the wish"
    return Change("stop", replica.replica, replica.model, replica.host, reason)


def moved_by(why: str, movers: Collection[str], changes: Iterable[Change]) -> list[Change]:
    """The changes with ``why`` before the reasons of these replicas, which would have stayed without it, and of the starts
    that take the places of those that stop.
    """
    told: list[Change] = []
    starts: Counter[str] = Counter()
    for change in sorted(changes, key=lambda one: (one.action == "start", one.host, one.replica)):
        mover = change.replica in movers and change.action in ("stop", "replace")
        starts[change.model] += mover and change.action == "stop"
        if change.action == "start" and starts[change.model]:
            starts[change.model] -= 1
            mover = True
        told.append(replace(change, reason=f"{why}: {change.reason}") if mover else change)
    return told


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Readable differences of two redacted specs: ``max_model_len: 4096 -> 8192; image: a -> b``."""
    if not old:
        return "started by hand or by another version: its launch spec is not known"
    before, after = flatten(old), flatten(new)
    lines = []
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) == after.get(key):
            continue
        if key.startswith("env."):
            state = "changed" if key in before and key in after else "added" if key in after else "removed"
            lines.append(f"{key} {state}")
        else:
            lines.append(f"{key}: {_short(before.get(key))} -> {_short(after.get(key))}")
    if not lines:
        return "launch spec changed in a derived value"
    more = f"; and {len(lines) - _MOST_REASONS} more" if len(lines) > _MOST_REASONS else ""
    return "; ".join(lines[:_MOST_REASONS]) + more


def flatten(spec: Mapping[str, Any]) -> dict[str, str]:
    """A spec as flat names and values; engine flags under their own names."""
    flat: dict[str, str] = {}
    for key, value in spec.items():
        if key in _DERIVED:
            continue
        if key == "command":
            flat.update(from_flags(value))
        elif isinstance(value, Mapping):
            flat.update({f"{key}.{name}": _text(item) for name, item in value.items()})
        else:
            flat[key] = _text(value)
    # The port stands in `publish`; the flag, and without a container the inner port, only repeat it.
    if "publish.port" in flat:
        if flat.get("publish.container_port") == flat["publish.port"]:
            flat.pop("publish.container_port")
        flat.pop("port", None)
        flat["port"] = flat.pop("publish.port")
    return flat


def count(changes: Iterable[Change]) -> dict[str, int]:
    """How many changes there are of each action."""
    totals = dict.fromkeys(("start", "stop", "replace", "keep", "unknown"), 0)
    for change in changes:
        totals[change.action] += 1
    return totals


def _change(action: str, slot: Slot, reason: str) -> Change:
    return Change(action, slot.replica, slot.model, slot.host, reason)


def _holding(slot: Slot) -> str:
    where = f"port {slot.port}"
    return f"GPU {', '.join(slot.gpus)}, {where}" if slot.gpus else where


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value is None else str(value)


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 3] + "..."
