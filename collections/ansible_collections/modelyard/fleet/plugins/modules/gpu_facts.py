#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""What the GPUs of one host are, and whether they are well."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gpu_facts
short_description: Say what the GPUs of one host are, and whether they are well
description:
  - Looks at the PCI bus, at the driver and at the tools of NVIDIA (C(nvidia-smi), C(nv-fabricmanager)) and AMD (C(amd-smi),
    else C(rocm-smi)), and at the kernel's log. Works before there is any driver.
  - Compares what it sees with what is declared and gives findings, each a sentence that says what to do.
  - Changes nothing, in check mode and out of it. Needs only Python's standard library.
  - Never fails for what a tool does. What a tool that hangs, fails or prints nonsense was asked for is C(unknown), with the
    reason; it is neither taken for absent nor for well.
author: Modelyard contributors (@modelyard)
extends_documentation_fragment: [modelyard.fleet.look]
options:
  count:
    description: How many GPUs there should be, of both vendors together.
    type: int
  driver:
    description: The branch that NVIDIA's driver should be of (V(580)), or its version (V(580.95.05)).
    type: str
  mig:
    description: MIG profiles that a GPU should have, by its number, UUID or PCI address, or by V(all) for those that
      are not named. An empty list means that MIG should be off.
    type: dict
    default: {}
  catalog:
    description: Generations of GPUs and what they ask of the driver. Taken from Modelyard's catalog when it is not given.
    type: dict
  sys:
    description: Where the kernel's C(/sys) is seen.
    type: path
    default: /sys
"""

EXAMPLES = r"""
- name: See which GPUs this host has
  modelyard.fleet.gpu_facts:
  register: __gpu_facts

- name: Compare this host's GPUs with what is declared
  modelyard.fleet.gpu_facts:
    count: 8
    driver: "580"
    mig:
      "0": [3g.40gb, 3g.40gb]
      all: []
  register: __gpu_facts

- name: End here when no engine should be started on this host
  ansible.builtin.assert:
    that: __gpu_facts.health == 'up'
    fail_msg: "{{ __gpu_facts.findings | map(attribute='text') | join(' ') }}"
"""

RETURN = r"""
state:
  description: C(up) when GPUs are there and answer, C(down) when there surely is none that could, C(unknown) otherwise.
  returned: always
  type: str
reason:
  description: Why the state is not C(up).
  returned: always
  type: str
health:
  description: C(down) when a finding is critical, C(unknown) when something vital is not known, else C(up).
  returned: always
  type: str
findings:
  description: >-
    What is wrong, the worst first. C(severity) is C(critical), C(unknown), C(warning) or C(note); C(gpu) is a PCI address,
    or null for what concerns the host.
  returned: always
  type: list
  elements: dict
  sample:
    - code: xid_79
      severity: critical
      gpu: "0000:3b:00.0"
      text: The driver has logged XID 79 for GPU 1 ...
vendors:
  description: >-
    For C(nvidia) and C(amd) whether there are GPUs (C(present), null when nobody knows), their C(state), and the reason.
  returned: always
  type: dict
gpus:
  description: >-
    Each GPU, also those on the PCI bus that no driver shows. Memory is in bytes, power in watts, temperatures in degrees
    Celsius; C(temperature_margin) is what is left until the GPU slows down, on cards that tell no limit. What the
    card does not have is null; what could not be found out is null too and has its reason under C(unknown).
    C(processes) are those that compute, without their arguments.
  returned: always
  type: list
  elements: dict
  sample:
    - vendor: nvidia
      index: 0
      uuid: GPU-11111111-2222-3333-4444-555555555555
      address: "0000:18:00.0"
      device: "2330"
      name: NVIDIA H100 80GB HBM3
      generation: Hopper
      compute: "9.0"
      driver_rule: {open_modules: recommended, first_branch: 525}
      memory_total: 85520809984
      memory_used: 0
      mig: {mode: false, pending: false, instances: []}
      temperature: 34.0
      throttle: []
      ecc: {mode: true, volatile_uncorrected: 0, remap_pending: false}
      persistence: true
      processes: []
      state: up
      health: up
      unknown: {}
drivers:
  description: >-
    For C(nvidia) the kernel module (version, and whether it is the open one), the userspace (version, the newest
    CUDA that it serves) and the fabric manager; for C(amd) the kernel module and the tool that answered. Each has a state.
  returned: always
  type: dict
pci:
  description: GPUs and NVSwitches on the PCI bus, and whether C(lspci) or the kernel's files (C(sysfs)) told them.
  returned: always
  type: dict
topology:
  description: >-
    Links between GPUs, and groups of them by number - joined by C(nvlink) or C(xgmi), behind one C(pcie_switch), on one
    C(numa) node.
  returned: always
  type: dict
xids:
  description: XID errors that the NVIDIA driver has logged since boot, by GPU and code.
  returned: always
  type: dict
lost:
  description: GPUs that nvidia-smi says it has no access to.
  returned: always
  type: list
  elements: dict
attached:
  description: How many GPUs the NVIDIA driver says it has; null when it does not say.
  returned: always
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.observe import observe

SPEC: dict[str, Any] = {
    "timeout": {"type": "float", "default": 20},
    "count": {"type": "int"},
    "driver": {"type": "str"},
    "mig": {"type": "dict", "default": {}},
    "catalog": {"type": "dict"},
    "path": {"type": "list", "elements": "path", "default": []},
    "proc": {"type": "path", "default": "/proc"},
    "sys": {"type": "path", "default": "/sys"},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    if params["timeout"] <= 0:
        module.fail_json(msg="timeout must be greater than 0")
    host = Host(params["timeout"], params["proc"], params["sys"], params["path"])
    expect = {name: params[name] for name in ("count", "driver", "mig")}
    module.exit_json(changed=False, **observe(host, params["catalog"] or {}, expect))


if __name__ == "__main__":
    main()
