#!/usr/bin/python
"""Ansible module: put weights in place that the controller has, as if this host had fetched them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import handover
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import WeightsError

DOCUMENTATION = r"""
module: model_handover
short_description: Put weights in place that the controller has, as if this host had fetched them
description:
  - For hosts without a way out. What is put in place has the manifest that M(modelyard.fleet.model_snapshot) writes, which
    therefore finds nothing to fetch.
  - Between C(prepared) and C(placed) the files that the first returns have to be copied to where it says.
  - Every file is hashed before anything is put in place. Weights that are there and as they should be are left alone;
    what a C(path) leads to is never changed.
options:
  weights:
    description: The models' weights.
    type: list
    elements: dict
    required: true
    suboptions:
      model: {description: "The model's id, for messages.", type: str, required: true}
      source: {description: "As M(modelyard.fleet.model_snapshot) takes it.", type: dict, required: true}
      destination: {description: Where they belong. Unused with a source C(path)., type: str}
      owner: {description: Numeric user that gets the files; -1 leaves them., type: int, default: -1}
      group: {description: Numeric group that gets the files; -1 leaves them., type: int, default: -1}
      from: {description: Directory of the controller that has the files., type: str, default: ""}
      single: {description: Whether they are one file and not a directory., type: bool, default: false}
      files:
        description: C(path) below O(weights[].from), C(size) in bytes and C(sha256). Left out when the controller has none.
        type: list
        elements: dict
  state:
    description: C(compared) only looks, C(prepared) makes the directories to copy into, C(placed) puts in place.
    type: str
    choices: [compared, prepared, placed]
    default: compared
  reserve_bytes: {description: Bytes that must stay free on the file system., type: int, default: 0}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: See what the host lacks
  modelyard.fleet.model_handover:
    weights: "{{ weights }}"
  register: look
"""

RETURN = r"""
pending: {description: Models whose weights the host lacks., type: list, elements: str, returned: always}
copies:
  description: Files that have to be copied, C(src) on the controller and C(dest) on the host.
  returned: unless placed
  type: list
  elements: dict
lines: {description: What is done and why., type: list, elements: str, returned: always}
"""

SPEC: dict[str, Any] = {
    "weights": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "model": {"type": "str", "required": True},
            "source": {"type": "dict", "required": True},
            "destination": {"type": "str"},
            "owner": {"type": "int", "default": -1},
            "group": {"type": "int", "default": -1},
            "from": {"type": "str", "default": ""},
            "single": {"type": "bool", "default": False},
            "files": {"type": "list", "elements": "dict"},
        },
    },
    "state": {"type": "str", "choices": ["compared", "prepared", "placed"], "default": "compared"},
    "reserve_bytes": {"type": "int", "default": 0},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    state = module.params["state"]
    copies: list[dict[str, str]] = []
    lines: list[str] = []
    pending: list[handover.Handed] = []
    problems: list[str] = []
    for item in module.params["weights"]:
        try:
            one = handover.parse(item)
            why = handover.lacking(one)
            if why is None:
                continue
            if one.files is None:
                raise WeightsError(
                    f"{one.snapshot.model}: {one.snapshot.destination} {why}, and the bundle does not hold "
                    f"{one.snapshot.origin}: make the bundle anew from this inventory"
                )
            pending.append(one)
            lines.append(f"{one.snapshot.model}: {one.snapshot.destination} {why}")
            if state == "placed":
                if not module.check_mode:
                    handover.place(one)
                continue
            if state == "prepared" and not module.check_mode:
                missing = handover.prepare(one, module.params["reserve_bytes"])
            else:
                missing = handover.to_copy(one)
            source = Path(item["from"])
            copies += [{"src": str(source / path), "dest": str(one.content / path)} for path in missing]
        except (WeightsError, OSError) as error:
            text = str(error)
            problems.append(text if text.startswith(item["model"]) else f"{item['model']}: {text}")
    result = {
        "changed": state == "placed" and bool(pending),
        "pending": [one.snapshot.model for one in pending],
        "lines": lines,
        "copies": copies,
    }
    if result["changed"]:
        result["diff"] = {"before": "", "after": handover.lines(pending)}
    if problems:
        module.fail_json(msg="; ".join(problems), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
