#!/usr/bin/python
"""Ansible module: what there is of the edge on a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.edge_view import look
from ansible_collections.modelyard.fleet.plugins.module_utils.security.machine import mode_of

DOCUMENTATION = r"""
module: edge_facts
short_description: What there is of the edge on a host
description:
  - Looks at the units, asks HAProxy how the proxies stand, and reads addresses, configurations and the public halves of the
    certificates. Changes nothing, and returns of keys and passwords digests and permissions only. It needs root.
options:
  directory: {description: Directory with configurations and keys., type: path, default: /etc/modelyard-edge}
  name: {description: Name of the units., type: str, default: modelyard-edge}
  local_port: {description: Port of HAProxy on 127.0.0.1., type: int, default: 8405}
  own: {description: Address of this host towards proxies and the other edge hosts., type: str, required: true}
  gathered:
    description: Files of HAProxy's configuration by their paths within that are made of files on the host.
    type: dict
    default: {}
  listen:
    description: Addresses that clients connect to; TLS is tried at the first that this host has.
    type: list
    elements: str
    default: []
  port: {description: Port for TLS., type: int, default: 443}
  tls_minimum: {description: Oldest declared version of TLS., type: str, choices: [TLSv1.2, TLSv1.3], default: TLSv1.2}
  timeout_s: {description: Seconds that each thing asked has for its answer., type: int, default: 10}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Look at the edge
  modelyard.fleet.edge_facts:
    own: 192.0.2.21
    listen: [192.0.2.10]
"""

RETURN = r"""
units:
  description: Units by C(haproxy), C(address) and C(renewal), each with C(load), C(active) and C(enabled).
  type: dict
  returned: always
unit_files: {description: Text of each unit's file; null without one., type: dict, returned: always}
haproxy:
  description: C(state), C(reason), C(generation) in force and how it has the C(proxies).
  type: dict
  returned: always
addresses:
  description: "C(here), all that this host has (null: unknown), C(interface) and C(reason)."
  type: dict
  returned: always
configurations: {description: "Of C(haproxy) and C(keepalived) the current generation.", type: dict, returned: always}
gathered: {description: Of each of O(gathered) the C(digest) that it should have., type: dict, returned: always}
socket: {description: C(path) and C(mode) of HAProxy's socket for commands; null without one., type: dict, returned: always}
listening: {description: What HAProxy listens on; null where that is unknown., type: list, returned: always}
tls: {description: Whether older TLS is spoken; null where this host has none of O(listen)., type: dict, returned: always}
problems: {description: What could not be found out., type: list, returned: always}
"""

SPEC: dict[str, Any] = {
    "directory": {"type": "path", "default": "/etc/modelyard-edge"},
    "name": {"type": "str", "default": "modelyard-edge"},
    "local_port": {"type": "int", "default": 8405},
    "own": {"type": "str", "required": True},
    "gathered": {"type": "dict", "default": {}},
    "listen": {"type": "list", "elements": "str", "default": []},
    "port": {"type": "int", "default": 443},
    "tls_minimum": {"type": "str", "choices": ["TLSv1.2", "TLSv1.3"], "default": "TLSv1.2"},
    "timeout_s": {"type": "int", "default": 10},
}
_PROC = Path("/proc")


def collect(params: dict[str, Any]) -> dict[str, Any]:
    """Everything, as plain data."""
    name, timeout_s = params["name"], params["timeout_s"]
    problems: list[str] = []
    names = {
        "haproxy": f"{name}.service",
        "address": f"{name}-address.service",
        "renewal": f"{name}-acme.timer",
    }
    units, problem = look.units(names, timeout_s)
    problems += [problem] if problem else []
    addresses = look.addresses(params["own"], timeout_s)
    root, socket = Path(params["directory"]), Path(f"/run/{name}/admin.sock")
    found: dict[str, Any] = {
        "units": units,
        "unit_files": {},
        "haproxy": look.haproxy(params["local_port"], timeout_s),
        "addresses": addresses,
        "configurations": {part: look.configuration(root / part) for part in look.PARTS},
        "gathered": look.gathered(params["gathered"]),
        "socket": None,
        "listening": None,
        "tls": None,
        "problems": problems,
    }
    try:
        found["unit_files"] = look.unit_files(list(names.values())[:2])
        mode = mode_of(socket)
        found["socket"] = {"path": str(socket), "mode": mode} if mode else None
        if "haproxy" in units:
            pid = units["haproxy"]["pid"]
            found["listening"] = look.sockets(_PROC, pid) if pid else []
    except OSError as error:
        problems.append(str(error))
    at = next((one for one in params["listen"] if one in (addresses["here"] or ())), None)
    if at is not None:
        found["tls"] = look.older_tls(at, params["port"], params["tls_minimum"], timeout_s)
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    module.exit_json(changed=False, **json.loads(json.dumps(collect(module.params))))


if __name__ == "__main__":
    main()
