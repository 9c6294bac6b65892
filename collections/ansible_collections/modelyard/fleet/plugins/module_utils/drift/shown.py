"""Values as a report may show them: short, as text, secrets as digests."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.planner.changes import flatten
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import redacted

Difference = dict[str, Any]
"""``kind``, ``field``, ``wanted``, ``found`` (text, None: not there) and ``seen_in``: where reality was read."""

_KINDS = {
    "image": "image",
    "ports": "ports", "exposed_ports": "ports", "port": "ports", "networks": "ports", "network_mode": "ports",
    "publish.address": "ports", "publish.container_port": "ports",
    "mounts": "mounts", "volumes": "mounts", "tmpfs": "mounts", "read_only": "mounts",
    "gpus": "gpus", "gpu_mode": "gpus", "accelerator": "gpus", "device_requests": "gpus", "devices": "gpus",
    "env.CUDA_VISIBLE_DEVICES": "gpus", "env.HIP_VISIBLE_DEVICES": "gpus",
    "command": "arguments", "entrypoint": "arguments", "executable": "arguments",
}  # fmt: skip

_LONGEST = 120
# An argument that somebody added by hand may carry what no declared one does.
_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)


def kind_of(field: str, otherwise: str) -> str:
    """What a field is about; ``otherwise`` for one that has no kind of its own."""
    return _KINDS.get(field) or ("environment" if field.startswith("env.") else otherwise)


def difference(field: str, wanted: str | None, found: str | None, seen_in: str, otherwise: str) -> Difference:
    """One difference, its values fit for a report."""
    return {
        "kind": kind_of(field, otherwise),
        "field": field,
        "wanted": shown(field, wanted),
        "found": shown(field, found),
        "seen_in": seen_in,
    }


def digest(value: str) -> str:
    """``sha256:`` and 12 digits, as the launch spec's own record has it."""
    return f"sha256:{hashlib.sha256(value.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def shown(field: str, value: str | None) -> str | None:
    """A value fit for a report: environment and what is named like a secret as a digest, the rest cut short."""
    if value is None or value.startswith("sha256:"):
        return value
    if field.startswith("env.") or (_SECRET.search(field) and not field.startswith("max_")):
        return digest(value)
    return value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "..."


def compared(wanted: Mapping[str, str], found: Mapping[str, str], seen_in: str) -> list[Difference]:
    """The fields of two flat mappings that differ, those that only one has included, in order of name."""
    return [
        difference(field, wanted.get(field), found.get(field), seen_in, "arguments")
        for field in sorted(wanted.keys() | found.keys())
        if wanted.get(field) != found.get(field)
    ]


def recorded_differences(
    recorded: Any, digest_found: str | None, assignment: Mapping[str, Any]
) -> list[Difference]:
    """What the record beside a replica says it was started with, against the launch spec that is wished now."""
    if digest_found == assignment["hash"]:
        return []
    wanted = flatten(redacted(assignment["spec"]))
    found = flatten(recorded) if isinstance(recorded, dict) else {}
    if not found:
        return [_hashes("record", assignment["hash"], digest_found, "lost or not readable")]
    spec = set(assignment["spec"])
    differences = [
        {
            **item,
            "kind": kind_of(
                item["field"], "settings" if item["field"].partition(".")[0] in spec else "arguments"
            ),
        }
        for item in compared(wanted, found, "record")
    ]
    return differences or [_hashes("launch spec", assignment["hash"], digest_found, "none")]


def first_of_each(differences: list[Difference]) -> list[Difference]:
    """One difference for each field: the first, so the callers put what is most real first."""
    kept: dict[str, Difference] = {}
    for item in differences:
        kept.setdefault(item["field"], item)
    return list(kept.values())


def _hashes(field: str, wanted: str, found: str | None, otherwise: str) -> Difference:
    seen = f"hash {found[:12]}" if found else otherwise
    return difference(field, f"hash {wanted[:12]}", seen, "record", "settings")
