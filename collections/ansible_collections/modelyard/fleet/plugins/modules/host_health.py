#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""What a host has beside its GPUs, and how full, slow or wrong it is."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_health
short_description: Look at disks, memory, clock, container engine and ports of one host
description:
  - One look at what engines need of a host beside its GPUs. It judges nothing; the action C(doctor) does.
  - Changes nothing, in check mode and out of it. Needs only Python's standard library.
  - Each command has a time limit. What cannot be found out has the state C(unknown) and a reason.
  - The action of the same name adds how far the host's clock is from the controller's.
author: Modelyard contributors (@modelyard)
extends_documentation_fragment: [modelyard.fleet.look]
options:
  directories:
    description: >-
      Directories whose file systems are looked at; a leading C(~/) is the user's home. One that is not there is judged
      by the nearest that is. The container engine's own directory is always among them.
    type: list
    elements: path
    default: []
  ports:
    description: The fleet's ports on this host, first and last (V(8100-8199)).
    type: str
    default: ""
  replicas:
    description: Replicas that run here, as C(fleet_facts) returns them, to tell their ports from those of strangers.
    type: list
    elements: dict
    default: []
  cdi_directories:
    description: Where CDI specifications are, in place of where the container engine reads them.
    type: list
    elements: path
    default: []
"""

EXAMPLES = r"""
- name: See how this host is
  modelyard.fleet.host_health:
    directories: [/var/lib/modelyard, /tmp]
    ports: 8100-8199
    replicas: "{{ __fleet_facts.replicas }}"
  register: __host_health
"""

RETURN = r"""
disks:
  description: >-
    One entry for each directory - C(path), C(at) (the directory that was looked at), C(filesystem), C(total) and C(free) in
    bytes, C(inodes) and C(inodes_free), which are null where there is no fixed number.
  returned: always
  type: list
  elements: dict
memory:
  description: C(total), C(available), C(swap_total) and C(swap_free) in bytes.
  returned: always
  type: dict
load:
  description: C(averages) of 1, 5 and 15 minutes, and the number of C(cores).
  returned: always
  type: dict
uptime_s:
  description: Seconds since the host was started; null when that is not known.
  returned: always
  type: float
clock:
  description: >-
    Whether something keeps the clock right (C(synchronised), null when nobody tells), and who said so (C(source)). The
    action adds C(offset_s), by how much the clock is ahead of the controller's, and C(within_s), how exact that is.
  returned: always
  type: dict
engine:
  description: >-
    C(state) of the container engine is C(up), C(absent), C(down), C(silent) (it hangs) or C(unknown); with it C(version),
    C(root), C(storage) and C(cdi_directories), which is empty where the engine reads none.
  returned: always
  type: dict
cdi:
  description: >-
    C(specs), each with C(file), C(kind), C(devices), what it names and is not there (C(missing)), and the C(reason) why
    it is not understood; C(toolkit), NVIDIA's container toolkit.
  returned: always
  type: dict
ports:
  description: C(listeners), each with C(port), C(process) (C(pid) and C(name), null where it cannot be seen), C(replica).
  returned: always
  type: dict
began:
  description: The host's time when it began to look, in seconds since the epoch.
  returned: always
  type: float
ended:
  description: The host's time when it had looked.
  returned: always
  type: float
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.hosts.collect import collect

SPEC: dict[str, Any] = {
    "timeout": {"type": "float", "default": 20},
    "directories": {"type": "list", "elements": "path", "default": []},
    "ports": {"type": "str", "default": ""},
    "replicas": {"type": "list", "elements": "dict", "default": []},
    "cdi_directories": {"type": "list", "elements": "path", "default": []},
    "path": {"type": "list", "elements": "path", "default": []},
    "proc": {"type": "path", "default": "/proc"},
}


def port_numbers(text: str) -> range:
    """The ports of ``8100-8199``; none of an empty text. ``ValueError`` for anything else."""
    if not text:
        return range(0)
    first, dash, last = text.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    if not dash or not numbers or numbers[0] < 1 or numbers[-1] > 65535:
        raise ValueError(text)
    return numbers


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    if params["timeout"] <= 0:
        module.fail_json(msg="timeout must be greater than 0")
    try:
        ports = port_numbers(params["ports"])
    except ValueError:
        module.fail_json(
            msg=f"ports must be the first and the last one, such as 8100-8199, not {params['ports']}"
        )
    host = Host(params["timeout"], params["proc"], "/sys", params["path"])
    directories = [str(Path(one).expanduser().absolute()) for one in params["directories"]]
    facts = collect(host, directories, ports, params["replicas"], params["cdi_directories"])
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
