#!/usr/bin/python
"""Ansible module: which TCP ports can be reached from a host, and from which address it asks."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.reach import look

DOCUMENTATION = r"""
module: tcp_reach
short_description: Which TCP ports can be reached from this host
description: Opens connections and closes them at once; sends nothing and changes nothing.
options:
  targets:
    description: Where to look, each with C(host), C(address) and C(ports); without ports only the own address is told.
    type: list
    elements: dict
    required: true
  timeout_s: {description: Seconds of silence after which a port counts as closed., type: float, default: 2.0}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Look from here
  modelyard.fleet.tcp_reach:
    targets: [{host: gpu01, address: 192.0.2.11, ports: [8100]}]
"""

RETURN = r"""
targets:
  description: >-
    Each target with C(source), the address that this host's connections to it come from, and for each of C(ports) the
    C(result), C(open), C(closed) or why it could not be tried.
  type: list
  returned: always
"""

SPEC: dict[str, Any] = {
    "targets": {"type": "list", "elements": "dict", "required": True},
    "timeout_s": {"type": "float", "default": 2.0},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    found = look(module.params["targets"], module.params["timeout_s"])
    module.exit_json(changed=False, targets=found)


if __name__ == "__main__":
    main()
