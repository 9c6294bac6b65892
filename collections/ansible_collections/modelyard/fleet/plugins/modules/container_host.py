#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: look at a host's container engine, its packages and the models that run under it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: container_host
short_description: Look at a host's container engine
description:
  - Says which packages are installed and held, whether the engine answers, which of its settings are in force and
    which containers of fleets run. Changes nothing, in check mode and out of it.
  - An engine that does not answer while containers may run is C(unknown), never C(down).
author: Modelyard contributors (@modelyard)
options:
  engine: {description: The container engine., type: str, choices: [docker, podman], default: docker}
  socket: {description: The socket of its API., type: path, default: /var/run/docker.sock}
  package_manager: {description: What installs packages on the host., type: str, choices: [apt, dnf], default: apt}
  packages:
    description: Names of the packages to look for.
    type: list
    elements: str
    default: []
  adopted:
    description: Names or ids of containers that count as models though they carry no fleet's label.
    type: list
    elements: str
    default: []
  note:
    description: File in which the role container_runtime notes what it made the host to. Without it nobody looks for one.
    type: path
  timeout_s: {description: Seconds that the engine and the package manager have to answer., type: int, default: 20}
attributes:
  check_mode:
    description: Runs in check mode as it does otherwise.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
"""

EXAMPLES = r"""
- name: Look at the host
  modelyard.fleet.container_host:
    packages: [docker.io, containerd, runc]
  register: __look
"""

RETURN = r"""
packages:
  description: Those of O(packages) that are installed, each with C(version), C(held) and C(lock) (for dnf's versionlock).
  returned: always
  type: dict
engine:
  description: >-
    C(state) (absent, down, up, unknown), C(problem), C(client) (whether its command is there), C(version),
    C(live_restore), C(data_root), C(log_driver), C(mirrors), C(swarm).
  returned: always
  type: dict
running:
  description: Names of the running containers that carry the label of a fleet, or are among O(adopted).
  returned: always
  type: list
  elements: str
wish:
  description: >-
    Digest of the wish that O(note) says the host was made to; empty where a run did not end, null where there is no note.
  returned: always
  type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import look

SPEC: dict[str, Any] = {
    "engine": {"type": "str", "choices": ["docker", "podman"], "default": "docker"},
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
    "package_manager": {"type": "str", "choices": ["apt", "dnf"], "default": "apt"},
    "packages": {"type": "list", "elements": "str", "default": []},
    "adopted": {"type": "list", "elements": "str", "default": []},
    "note": {"type": "path"},
    "timeout_s": {"type": "int", "default": 20},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    try:
        packages = look.installed(params["package_manager"], params["packages"], params["timeout_s"])
    except look.LookError as error:
        module.fail_json(msg=str(error))
    engine, running = look.engine(
        params["engine"], Path(params["socket"]), params["timeout_s"], params["adopted"]
    )
    wish = look.wish_noted(Path(params["note"])) if params["note"] else None
    module.exit_json(changed=False, packages=packages, engine=engine, running=running, wish=wish)


if __name__ == "__main__":
    main()
