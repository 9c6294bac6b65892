#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Observe one host: replicas, foreign containers, GPUs and listening ports."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: fleet_facts
short_description: Observe the replicas, GPUs and ports of one host
description:
  - Says which replicas of a fleet run on the host, in both runtimes, and what else holds GPUs and ports.
  - Changes nothing, in check mode and out of it.
  - A state that cannot be found out is C(unknown), never C(down).
author: Modelyard contributors (@modelyard)
options:
  fleet:
    description: Name of the fleet; containers of other fleets count as foreign.
    type: str
    default: modelyard
  home:
    description: Directory on the host that holds C(process/) and C(supervisor/); a leading C(~/) is the user's home.
    type: str
    required: true
  timeout:
    description: Seconds that Docker, the supervisor and nvidia-smi have to answer.
    type: int
    default: 20
  adopt:
    description: Names or ids of containers that were started by other means and that the fleet adopts.
    type: list
    elements: str
    default: []
  docker_foreseen:
    description: >-
      An earlier task of this check would have installed Docker. Where it is absent, C(docker) is C(foreseen) then.
    type: bool
    default: false
  accelerator:
    description:
      - What the host computes with, where GPUs of it may be given to models. They are then looked at in the same go, as
        M(modelyard.fleet.gpu_facts) does.
      - Without it only nvidia-smi's list of GPUs is read, where there is one.
    type: str
    choices: [nvidia, rocm]
  catalog:
    description: Generations of GPUs and what they ask of the driver. Taken from Modelyard's catalog when it is not given.
    type: dict
  weights:
    description: Directories of weights whose C(config.json) and size are told, to work out what a model needs of GPUs.
    type: list
    elements: str
    default: []
  path:
    description: Directories to look for the tools of GPUs in, instead of C(PATH) and the usual ones.
    type: list
    elements: path
    default: []
  proc:
    description: Where the kernel's C(/proc) is seen, for GPUs.
    type: path
    default: /proc
  sys:
    description: Where the kernel's C(/sys) is seen, for GPUs.
    type: path
    default: /sys
attributes:
  check_mode:
    description: Runs in check mode as it does otherwise.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
"""

EXAMPLES = r"""
- name: Observe this host
  modelyard.fleet.fleet_facts:
    fleet: modelyard
    home: /var/lib/modelyard
  register: __fleet_facts

- name: Observe this host and the health of its GPUs
  modelyard.fleet.fleet_facts:
    home: /var/lib/modelyard
    accelerator: nvidia
  register: __fleet_facts
"""

RETURN = r"""
replicas:
  description: >-
    Replicas of the fleet on this host. C(previous) is what is kept of a replica that was replaced, until that is
    confirmed or undone; it does not run and holds neither GPU nor port, unless its own state says C(up).
  returned: always
  type: list
  elements: dict
  sample:
    - replica: gpu01.qwen2.5-7b.0
      model: qwen2.5-7b
      runtime: docker
      state: up
      hash: 3f0c
      spec: {}
      gpus: ["0"]
      port: 8100
      previous: null
      container_id: 5d1e
      started_at: "2026-01-01T00:00:00Z"
adopted:
  description: Those of O(adopt) that there are, running or not, with the addresses and ports that they publish.
  returned: always
  type: list
  elements: dict
foreign:
  description: Running containers that are not of this fleet, with the GPUs they asked for.
  returned: always
  type: list
  elements: dict
listening_ports:
  description: TCP ports that something listens on.
  returned: always
  type: list
  elements: int
gpus:
  description: GPUs that the vendor's tool lists, with the processes on them that are not of this fleet.
  returned: always
  type: list
  elements: dict
hardware:
  description: >-
    What M(modelyard.fleet.gpu_facts) knows of the accelerator's GPUs. C(gpus) have their C(health) (C(up), C(down) or
    C(unknown)) with the reason, their memory in bytes, the C(instances) that MIG has cut them into, and under C(used) the
    bytes that each replica uses of them. C(groups) are those that belong together, C(links) the fast ones between two.
  returned: when O(accelerator) is given
  type: dict
weights:
  description: For those of O(weights) that hold a model its C(config), and C(files_bytes), null where nobody can tell.
  returned: when O(accelerator) is given
  type: dict
images:
  description: The id that each name of an image (C(repository:tag)) stands for on this host.
  returned: always
  type: dict
docker:
  description: >-
    Whether the Docker daemon answers, C(up), C(absent) or C(unknown); C(foreseen) with O(docker_foreseen), where it is
    absent.
  returned: always
  type: str
process:
  description: Whether the replicas of the process runtime could be listed, C(up), C(absent) or C(unknown).
  returned: always
  type: str
problems:
  description: What could not be found out, and why.
  returned: always
  type: list
  elements: str
home:
  description: The option O(home) as an absolute path.
  returned: always
  type: str
user_home:
  description: Home directory of the user that the module ran as.
  returned: always
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.vendors import VENDOR_OF
from ansible_collections.modelyard.fleet.plugins.module_utils.observe import (
    docker,
    gpus,
    hardware,
    ports,
    process,
    weights,
)

SPEC: dict[str, Any] = {
    "fleet": {"type": "str", "default": "modelyard"},
    "home": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 20},
    "adopt": {"type": "list", "elements": "str", "default": []},
    "docker_foreseen": {"type": "bool", "default": False},
    "accelerator": {"type": "str", "choices": list(VENDOR_OF)},
    "catalog": {"type": "dict"},
    "weights": {"type": "list", "elements": "str", "default": []},
    "path": {"type": "list", "elements": "path", "default": []},
    "proc": {"type": "path", "default": "/proc"},
    "sys": {"type": "path", "default": "/sys"},
}


def observe(params: dict[str, Any], home: str) -> dict[str, Any]:
    """Everything that can be seen, as plain data. ``home`` is the option as an absolute path."""
    fleet, timeout, adopt = params["fleet"], params["timeout"], params["adopt"]
    problems: list[str] = []
    docker_state, containers, foreign, adopted = docker.containers(fleet, timeout, problems, adopt)
    listening = ports.listening("/proc")
    process_state, processes = process.replicas(Path(home), timeout, listening, problems)
    replicas = containers + processes
    ours = [item["container_id"] for item in (*containers, *adopted)]
    ours += [item["previous"]["container_id"] for item in containers if item["previous"]]
    roots = [item["pid"] for item in processes if item.get("pid")]
    seen: dict[str, Any] = {}
    if params["accelerator"]:
        seen["weights"] = weights.sizes(params["weights"])
        machine = Host(timeout, params["proc"], params["sys"], params["path"])
        devices, seen["hardware"] = hardware.look(
            machine,
            VENDOR_OF[params["accelerator"]],
            params["catalog"] or {},
            gpus.Owner(params["proc"], ours, roots),
            {item["replica"]: _owner(params["proc"], item) for item in replicas},
        )
    else:
        devices = gpus.devices(timeout, problems, gpus.Owner("/proc", ours, roots))
    return {
        "replicas": sorted(replicas, key=lambda item: item["replica"]),
        "adopted": sorted(adopted, key=lambda item: item["container"]),
        "foreign": sorted(foreign, key=lambda item: item["name"]),
        "listening_ports": sorted(listening),
        "gpus": devices,
        "docker": docker_state,
        "images": docker.images(timeout) if docker_state == docker.UP else {},
        "process": process_state,
        "problems": problems,
        "home": home,
        "user_home": str(Path.home()),
        **seen,
    }


def _owner(proc: str, item: dict[str, Any]) -> gpus.Owner:
    """Whoever belongs to this one replica."""
    containers = [item["container_id"]] if item.get("container_id") else []
    return gpus.Owner(proc, containers, [item["pid"]] if item.get("pid") else [])


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    home = str(Path(module.params["home"]).expanduser().absolute())
    seen = observe(module.params, home)
    if module.params["docker_foreseen"] and seen["docker"] == docker.ABSENT:
        seen["docker"] = docker.FORESEEN
    module.exit_json(changed=False, **seen)


if __name__ == "__main__":
    main()
