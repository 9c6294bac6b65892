#!/usr/bin/python
"""Ansible module: find, or remove, weights that nobody uses any more."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.engine import Engine, EngineError
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import WeightsError
from ansible_collections.modelyard.fleet.plugins.module_utils.sweeping import find, open_paths, remove

DOCUMENTATION = r"""
module: weights_sweep
short_description: Find, or remove, weights that nobody uses any more
description:
  - Lists directories of weights that neither the inventory wants nor anything on the host uses (open files, command
    lines, mounts of any container, running or stopped). Only what Modelyard put there is listed.
  - Removes what O(remove) names, and only what would still be listed.
  - Where the container engine cannot be asked, it fails and nothing is removed.
options:
  directory:
    description: The directory of weights.
    type: path
    required: true
  keep:
    description: Names in it that the inventory wants.
    type: list
    elements: str
    default: []
  keep_paths:
    description: Paths that replicas of this host use.
    type: list
    elements: str
    default: []
  docker:
    description: Whether there is a container engine to ask.
    type: bool
    required: true
  docker_socket:
    description: Its socket.
    type: path
    default: /var/run/docker.sock
  remove:
    description: Paths to remove. Without it nothing is.
    type: list
    elements: path
    default: []
author: [Modelyard]
"""

RETURN = r"""
found:
  description: What could be removed, each with C(path), C(bytes) and C(what).
  type: list
  returned: always
removed:
  description: Paths that were removed.
  type: list
  returned: always
"""


def mounted(socket: str) -> list[str]:
    """Paths that containers mount. Raises ``EngineError``."""
    engine = Engine(socket)
    try:
        return [
            str(mount["Source"])
            for one in engine.containers()
            for mount in engine.inspect(one["Id"]).get("Mounts") or ()
            # the root of a file system, as exporters have it, holds everything and uses nothing
            if mount.get("Source") not in (None, "", "/")
        ]
    finally:
        engine.close()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "keep_paths": {"type": "list", "elements": "str", "default": []},
            "docker": {"type": "bool", "required": True},
            "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
            "remove": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    directory = Path(params["directory"])
    removed: list[str] = []
    try:
        used = {*params["keep_paths"], *open_paths()}
        mounts = mounted(params["docker_socket"]) if params["docker"] else []
        found = find(directory, set(params["keep"]), used, mounts)
        names = [item["path"] for item in found]
        for path in params["remove"]:
            if path not in names:
                module.fail_json(
                    msg=f"{path} is in use again or gone, so no more is removed", found=found, removed=removed
                )
            if not module.check_mode:
                remove(directory, Path(path))
            removed.append(path)
    except (EngineError, WeightsError, OSError) as error:
        module.fail_json(msg=f"{error}. No more weights are removed", found=[], removed=removed)
    module.exit_json(
        changed=bool(removed),
        found=found,
        removed=removed,
        diff=[{"before": f"{path}\n", "after": ""} for path in removed],
    )


if __name__ == "__main__":
    main()
