#!/usr/bin/python
"""Ansible module: what a replica's engine has logged, from a cursor on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import replica_log as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home

DOCUMENTATION = r"""
module: replica_log
short_description: What a replica's engine has logged, from a cursor on
description:
  - Returns the last lines of the log, or those that came since the cursor of an earlier call. Changes nothing, and
    leaves nothing running.
options:
  replica: {description: Id of the replica., type: str, required: true}
  fleet: {description: Name of the fleet., type: str, default: modelyard}
  home: {description: The fleet's directory on this host., type: path, required: true}
  docker_socket: {description: Socket of the container engine., type: path, default: /var/run/docker.sock}
  lines: {description: Lines at most without a cursor., type: int, default: 100}
  since_s: {description: Only lines of the last so many seconds; a process's log has no times., type: float}
  cursor: {description: Cursor of the call before., type: dict, default: {}}
  whole: {description: Also return a last line that is not finished yet., type: bool, default: true}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Look at the last lines
  modelyard.fleet.replica_log:
    replica: gpu01.qwen2.5-7b.0
    home: /var/lib/modelyard
"""

RETURN = r"""
lines: {description: Lines with C(time) (null where the log has none) and C(line)., type: list, returned: always}
cursor: {description: What to give to the next call., type: dict, returned: always}
more: {description: Whether more can be had at once., type: bool, returned: always}
runtime: {description: C(process) or C(docker)., type: str, returned: always}
"""

SPEC: dict[str, Any] = {
    "replica": {"type": "str", "required": True},
    "fleet": {"type": "str", "default": "modelyard"},
    "home": {"type": "path", "required": True},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "lines": {"type": "int", "default": 100},
    "since_s": {"type": "float"},
    "cursor": {"type": "dict", "default": {}},
    "whole": {"type": "bool", "default": True},
}


def look(params: dict[str, Any]) -> tuple[str, lib.Piece]:
    """One look at the log, in the runtime that the replica has here. Raises ``LogError`` and ``OSError``."""
    replica, cursor, lines = params["replica"], params["cursor"], max(0, params["lines"])
    folder = Home(Path(params["home"])).program_folder(replica)
    if folder.is_dir():
        if params["since_s"] is not None:
            raise lib.LogError(f"{replica} is a process, whose log has no times: say how many lines instead")
        return "process", lib.process_log(folder, lines, cursor, params["whole"])
    socket = Path(params["docker_socket"])
    if not socket.exists():
        there = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        raise lib.LogError(f"{replica} is not on this host; there are: {', '.join(there) or 'none'}")
    return "docker", lib.container_log(socket, params["fleet"], replica, lines, params["since_s"], cursor)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    if "/" in module.params["replica"]:
        module.fail_json(msg=f"{module.params['replica']!r} is no replica's id")
    try:
        runtime, piece = look(module.params)
    except (lib.LogError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, runtime=runtime, lines=piece.lines, cursor=piece.cursor, more=piece.more)


if __name__ == "__main__":
    main()
