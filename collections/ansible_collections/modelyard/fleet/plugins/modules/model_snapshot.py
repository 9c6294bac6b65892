#!/usr/bin/python
"""Ansible module: bring models' weights to a host, whole and verified."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import snapshot as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.files import human
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    MANIFEST,
    Manifest,
    WeightsError,
    give_to,
    read_manifest,
    wrongly_owned,
)

DOCUMENTATION = r"""
module: model_snapshot
short_description: Bring models' weights to a host, whole and verified
description:
  - Fetches each model from a hub (pinned revision) or a URL (SHA-256), or checks that a given path is readable.
  - A manifest with sizes and hashes is written last. A directory without a fitting manifest is never trusted.
  - An interrupted download goes on where it stopped.
  - A model whose source is a path is only looked at, never changed.
options:
  snapshots:
    description: The models. Their order is kept.
    type: list
    elements: dict
    required: true
    suboptions:
      model:
        description: The model's id, for messages.
        type: str
        required: true
      source:
        description: Exactly one of C(path), C(hub) with C(revision), C(url) with C(sha256).
        type: dict
        required: true
        suboptions:
          path: {description: An existing file or directory of this host., type: str}
          hub: {description: A model of the hub., type: str}
          revision: {description: The commit (40 hex digits)., type: str}
          url: {description: One file or archive (tar, tar.gz, zip)., type: str}
          sha256: {description: The SHA-256 of what the URL gives., type: str}
      destination:
        description: The directory for the weights. Unused with C(path).
        type: str
      owner:
        description: Numeric user that gets the files; -1 leaves them to the user that runs the module.
        type: int
        default: -1
      group:
        description: Numeric group that gets the files; -1 as for O(snapshots[].owner).
        type: int
        default: -1
  fetch:
    description: Whether to download. Without it the module looks and lists what is pending.
    type: bool
    default: true
  verify:
    description: C(quick) compares sizes with the manifest, C(full) hashes as well.
    type: str
    choices: [quick, full]
    default: quick
  offline:
    description: Never use the network; missing weights are an error.
    type: bool
    default: false
  reserve_bytes:
    description: Bytes that must stay free on the file system.
    type: int
    default: 0
  hub_endpoint:
    description: Base URL of the hub.
    type: str
    default: https://huggingface.co
  hub_token_file:
    description: File on this host that holds a token for the hub.
    type: path
  hub_python:
    description: A Python on this host that has huggingface_hub; default is the one that runs the module.
    type: path
  timeout_s:
    description: Seconds without a byte after which a connection is given up.
    type: float
    default: 30.0
  state:
    description: C(absent) removes directories that hold a manifest of this module, and no others.
    type: str
    choices: [present, absent]
    default: present
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Fetch one model
  modelyard.fleet.model_snapshot:
    snapshots:
      - model: qwen2.5-7b
        source: {hub: Qwen/Qwen2.5-7B-Instruct, revision: a09a35458c702b33eeacc393d103063234e8bc28}
        destination: /srv/weights/qwen2.5-7b
        owner: 1000
        group: 1000
"""

RETURN = r"""
snapshots:
  description: One entry per model with C(model), C(destination), C(action) and C(reason).
  type: list
  returned: always
pending:
  description: Ids of the models that must be fetched or given to their owner.
  type: list
  returned: always
"""

SPEC: dict[str, Any] = {
    "snapshots": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "model": {"type": "str", "required": True},
            "source": {
                "type": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str"},
                    "hub": {"type": "str"},
                    "revision": {"type": "str"},
                    "url": {"type": "str"},
                    "sha256": {"type": "str"},
                },
            },
            "destination": {"type": "str"},
            "owner": {"type": "int", "default": -1},
            "group": {"type": "int", "default": -1},
        },
    },
    "fetch": {"type": "bool", "default": True},
    "verify": {"type": "str", "choices": ["quick", "full"], "default": "quick"},
    "offline": {"type": "bool", "default": False},
    "reserve_bytes": {"type": "int", "default": 0},
    "hub_endpoint": {"type": "str", "default": "https://huggingface.co"},
    "hub_token_file": {"type": "path", "no_log": False},
    "hub_python": {"type": "path"},
    "timeout_s": {"type": "float", "default": 30.0},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def _present(
    snapshot: lib.Snapshot, options: lib.Options, fetch: bool, check_mode: bool
) -> tuple[dict[str, Any], Manifest | None, Manifest | None]:
    """One model: its result, and its manifest before and after."""
    finding = lib.look(snapshot, options.full)
    before = after = finding.manifest
    result: dict[str, Any] = {
        "model": snapshot.model,
        "destination": str(snapshot.destination),
        "action": "keep",
        "reason": f"{human(finding.bytes)} as they should be",
        "bytes": finding.bytes,
    }
    if finding.fetch is None and not finding.own:
        return result, before, after
    lib.check_rights(snapshot)
    if finding.fetch is None:
        result |= {"action": "own", "reason": f"{finding.own} files belong to another user or group"}
        if fetch and not check_mode:
            wrong = wrongly_owned(snapshot.destination, snapshot.owner, snapshot.group)
            give_to(wrong, snapshot.owner, snapshot.group)
        return result, before, after
    if options.offline:
        lib.refuse_offline(snapshot, finding)
    result |= {"action": "fetch", "reason": f"{snapshot.destination} {finding.fetch}"}
    if not fetch:
        return result, before, after
    if check_mode:
        size = lib.expected_bytes(snapshot, options)
        amount = "an unknown number of bytes" if size is None else human(size)
        if size is not None:
            lib.require_space(snapshot.destination, size, options.reserve, snapshot.origin)
        result["reason"] += f"; would download {snapshot.origin} ({amount})"
        result["bytes"] = size or 0
        after = Manifest(snapshot.model, snapshot.source, ())
    else:
        after = lib.obtain(snapshot, finding, options)
        result["reason"] += f"; downloaded {snapshot.origin} ({human(after.size)})"
        result["bytes"] = after.size
    return result, before, after


def _absent(snapshot: lib.Snapshot, check_mode: bool) -> dict[str, Any]:
    """Remove one model's directory, if it is ours."""
    place = snapshot.destination
    result = {"model": snapshot.model, "destination": str(place), "action": "keep", "reason": "is not there"}
    if snapshot.kind == "path":
        return result | {"reason": "source.path is never removed"}
    staging = place.with_name(f".{place.name}.partial")
    ours = [path for path in (place, staging) if path.exists()]
    if place.exists() and read_manifest(place) is None:
        raise WeightsError(
            f"{snapshot.model}: {place} has no {MANIFEST}, so it is not removed: look at it yourself"
        )
    if ours:
        result |= {"action": "remove", "reason": f"{place} is no longer wanted"}
    if not check_mode:
        for path in ours:
            shutil.rmtree(path)
        Path(f"{staging}.lock").unlink(missing_ok=True)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    done: list[dict[str, Any]] = []
    diff: list[dict[str, str]] = []
    problems: list[str] = []
    try:
        token_file = params["hub_token_file"]
        token = Path(token_file).read_text(encoding="utf-8").strip() if token_file else None
    except OSError as error:
        module.fail_json(msg=f"the hub's token file cannot be read: {error}")
    options = lib.Options(
        full=params["verify"] == "full",
        offline=params["offline"],
        reserve=params["reserve_bytes"],
        hub_endpoint=params["hub_endpoint"],
        hub_python=params["hub_python"] or sys.executable,
        token=token,
        timeout_s=params["timeout_s"],
    )
    for item in params["snapshots"]:
        try:
            snapshot = lib.parse(item)
            if params["state"] == "absent":
                done.append(_absent(snapshot, module.check_mode))
                continue
            result, before, after = _present(snapshot, options, params["fetch"], module.check_mode)
        except WeightsError as error:
            text = str(error)
            problems.append(text if text.startswith(item["model"]) else f"{item['model']}: {text}")
            continue
        except OSError as error:
            problems.append(f"{item['model']}: {error}")
            continue
        done.append(result)
        if result["action"] == "fetch" and params["fetch"]:
            diff.append(
                {
                    "before": lib.summary(snapshot, before),
                    "after": lib.summary(snapshot, after),
                    "before_header": str(snapshot.destination),
                    "after_header": str(snapshot.destination),
                }
            )
    pending = [result["model"] for result in done if result["action"] != "keep"]
    acts = params["fetch"] or params["state"] == "absent"
    outcome = {"snapshots": done, "pending": pending, "changed": bool(pending) and acts, "diff": diff}
    if problems:
        module.fail_json(msg="\n".join(problems), **outcome)
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
