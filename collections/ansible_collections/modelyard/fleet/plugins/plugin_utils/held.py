"""The wish as it is in force: the inventory's, but for models that are held at an earlier release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError

from modelyard.errors import ConfigError
from modelyard.inventory import HostView, with_defaults
from modelyard.releases import Hold, Wished, apply_hold, has_ended, launch_of, read_holds, read_releases
from modelyard.releases.holds import from_dict

HOLD_RESULT = "__fleet_hold"
"""Where a play has the result of the task that began or ended a hold: what check mode did not write."""

Engines = Mapping[str, Mapping[str, Any]]
Models = list[dict[str, Any]]
Named = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class InForce:
    """``models`` with holds applied; ``own`` what the inventory itself wishes of each.

    ``held`` says of each held model ``model``, ``release``, ``since``, ``who``, ``text`` and ``notes`` (what could not
    be kept); ``ended`` are the models whose hold has ended, with a sentence; ``problems`` are holds that cannot be
    applied, so that nothing may be planned before they are ended.
    """

    models: Models
    own: Mapping[str, Wished] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    held: tuple[dict[str, Any], ...] = ()
    ended: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def in_force(
    models: Models,
    hosts: Mapping[str, HostView],
    patterns: Mapping[str, Sequence[str]],
    engines: Engines,
    state_dir: Path,
    told: Mapping[str, Any] | None = None,
    named: Named | None = None,
) -> InForce:
    """Apply the holds of the state directory, or those that an earlier task of this run has ``told``.

    ``named`` says by host what names of images stand for there, where that was seen.

    ``AnsibleError`` when the holds cannot be read.
    """
    problems: list[str] = []
    try:
        holds = (
            read_holds(state_dir) if told is None else {name: from_dict(one) for name, one in told.items()}
        )
        own, out, held = {}, [], []
        ended = {name: f"{name} is no longer in the inventory: it is held no more." for name in holds}
        for model in models:
            name = model["id"]
            images = images_of(model, hosts, patterns, engines)
            own[name] = Wished(launch_of(with_defaults(model, engines[model["engine"]])), images)
            hold = holds.get(name)
            if hold is None:
                out.append(model)
                continue
            del ended[name]
            if has_ended(hold, own[name]):
                ended[name] = (
                    f"{name} is held at release {hold.release} no more: its wish in the inventory is another one."
                )
                out.append(model)
                continue
            try:
                entry, row = _held(model, hold, hosts, patterns, engines, state_dir, named or {})
            except ConfigError as error:
                problems.append(error.message)
                continue
            out.append(entry)
            held.append(row)
    except ConfigError as error:
        raise AnsibleError(error.message) from error
    return InForce(out, own, holds, tuple(held), ended, tuple(problems))


def _held(
    model: Mapping[str, Any],
    hold: Hold,
    hosts: Mapping[str, HostView],
    patterns: Mapping[str, Sequence[str]],
    engines: Engines,
    state_dir: Path,
    named: Named,
) -> tuple[dict[str, Any], dict[str, Any]]:
    name = model["id"]
    to_end = f"-e model={name} -e release=current with playbooks/rollback.yml ends the hold"
    release = read_releases(state_dir, name).find(hold.release)
    if release is None:
        raise ConfigError(
            f"{name} is held at release {hold.release}, which is not recorded any more: {to_end}."
        )
    if release.launch["engine"] not in engines:
        raise ConfigError(
            f"{name} is held at release {hold.release}, of the engine {release.launch['engine']}, which is not in the "
            f"catalog any more: {to_end}."
        )
    kinds = {
        host: str(hosts[host].settings["fleet_accelerator"]) for host in _hosts_of(model, hosts, patterns)
    }
    entry, notes = apply_hold(model, release, kinds, named)
    text = (
        f"{name} is held at release {hold.release} (by {hold.who}, {hold.since}) until its wish in the inventory changes; "
        f"{to_end}."
    )
    more = [f"{name}, held at release {hold.release}: {note}." for note in notes]
    return entry, {
        "model": name, "release": hold.release, "since": hold.since, "who": hold.who, "text": text, "notes": more,
    }  # fmt: skip


def images_of(
    model: Mapping[str, Any],
    hosts: Mapping[str, HostView],
    patterns: Mapping[str, Sequence[str]],
    engines: Engines,
) -> dict[str, dict[str, Any]]:
    """By host of the model's pattern its accelerator and image, where it would run as a container."""
    found = {}
    for name in _hosts_of(model, hosts, patterns):
        settings = hosts[name].settings
        if (model.get("runtime") or settings["fleet_runtime"]) != "docker":
            continue
        kind = str(settings["fleet_accelerator"])
        own = (settings.get("fleet_images") or {}).get(model["engine"], {}).get(kind)
        image = (
            (model.get("images") or {}).get(name)
            or model.get("image")
            or own
            or engines[model["engine"]]["images"].get(kind)
        )
        if image:
            found[name] = {
                "accelerator": kind,
                "wished": str(image),
                "digest": _digest(str(image)),
                "image_id": None,
            }
    return found


def _digest(image: str) -> str | None:
    return image if "@sha256:" in image else None


def _hosts_of(
    model: Mapping[str, Any], hosts: Mapping[str, HostView], patterns: Mapping[str, Sequence[str]]
) -> list[str]:
    pattern = (model.get("placement") or {}).get("hosts", "engine_hosts")
    return [name for name in patterns.get(pattern, ()) if name in hosts]
