#!/usr/bin/python
"""Ansible module: what a proxy still has on replicas, and which registry it follows."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.draining import look

DOCUMENTATION = r"""
module: proxy_drain
short_description: Wait until a proxy has taken a registry, and nothing runs on replicas (or they are used again)
description:
  - Asks the proxy on its own host for its metrics; needs no key, changes nothing.
  - The action of the same name asks again and again from the controller, and prints what it waits for. As a module it
    looks once.
  - A proxy that refuses the connection has no requests, and is waited for no longer. One that does not answer otherwise
    is an error, since its requests would be cut.
options:
  url: {description: Where this host reaches its proxy., type: str, required: true}
  replicas:
    description: Ids of the replicas.
    type: list
    elements: str
    default: []
  drain_s:
    description: By replica, how many seconds its requests may take to end.
    type: dict
    default: {}
  generation: {description: The registry's generation that must be in force., type: int, default: 0}
  until:
    description: >-
      V(drained) waits until none of the replicas has a request, V(active) until the proxy finds each of them ready,
      V(answering) only for an answer.
    type: str
    choices: [drained, active, answering]
    default: drained
  patience_s: {description: Seconds to wait for the registry and for ready replicas., type: float, default: 60.0}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Wait until nothing runs on a replica
  modelyard.fleet.proxy_drain:
    url: http://127.0.0.1:8000
    replicas: [gpu01.m.0]
    drain_s: {gpu01.m.0: 60}
    generation: 42
"""

RETURN = r"""
state: {description: 'up, down (nobody listens) or unknown.', type: str, returned: always}
why: {description: Why its state is not up., type: str, returned: always}
generation: {description: The registry's generation in force., type: int, returned: always}
in_flight: {description: Requests by replica., type: dict, returned: always}
states: {description: The proxy's word for each replica., type: dict, returned: always}
cut: {description: Requests by replica that had not ended in time., type: dict, returned: by the action}
"""

SPEC: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "replicas": {"type": "list", "elements": "str", "default": []},
    "drain_s": {"type": "dict", "default": {}},
    "generation": {"type": "int", "default": 0},
    "until": {"type": "str", "choices": ["drained", "active", "answering"], "default": "drained"},
    "patience_s": {"type": "float", "default": 60.0},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    module.exit_json(changed=False, **look(module.params["url"].rstrip("/"), module.params["replicas"]))


if __name__ == "__main__":
    main()
