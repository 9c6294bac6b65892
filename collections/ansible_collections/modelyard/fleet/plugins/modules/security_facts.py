#!/usr/bin/python
"""Ansible module: what of a host matters for security."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.containers import EngineError, engine
from ansible_collections.modelyard.fleet.plugins.module_utils.firewall import within
from ansible_collections.modelyard.fleet.plugins.module_utils.security import machine
from ansible_collections.modelyard.fleet.plugins.module_utils.security.containers import FOREIGN, described

DOCUMENTATION = r"""
module: security_facts
short_description: What of a host matters for security
description:
  - Looks at the containers, the Docker daemon, files with secrets, listening ports, the table C(inet modelyard) and
    unattended upgrades. Changes nothing, and returns no value of a secret.
options:
  fleet: {description: Name of the fleet., type: str, default: modelyard}
  home: {description: The fleet's directory on this host., type: path, required: true}
  adopt: {description: Names or ids of adopted containers., type: list, elements: str, default: []}
  docker: {description: Whether engines run in containers here., type: bool, default: false}
  docker_socket: {description: Socket of the container engine., type: path, default: /var/run/docker.sock}
  ports: {description: Ports of the engines, such as 8100-8199; empty on a host without engines., type: str, default: ""}
  settings: {description: Files that a proxy here may have its settings in., type: list, elements: path, default: []}
  secrets: {description: More files that only their owner may read., type: list, elements: path, default: []}
  rules: {description: File of our nftables table., type: path, default: /etc/nftables.d/modelyard.nft}
  timeout_s: {description: Seconds that the container engine has for one answer., type: float, default: 20.0}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Look at this host
  modelyard.fleet.security_facts:
    home: /var/lib/modelyard
    docker: true
    ports: 8100-8199
"""

RETURN = r"""
containers: {description: What matters of each container., type: list, returned: always}
programs: {description: Programs of the process runtime., type: list, returned: always}
listening: {description: C(address) and C(port) of what listens on the engines' ports., type: list, returned: always}
daemon: {description: How Docker's API listens., type: dict, returned: always}
docker_socket: {description: C(path) and C(mode) of Docker's socket; null without one., type: dict, returned: always}
files: {description: Files with secrets and their modes., type: list, returned: always}
admin_key: {description: The proxy's management key without the key; null without one., type: dict, returned: always}
firewall: {description: "Our table: none, same, missing, different or unknown.", type: str, returned: always}
upgrades: {description: Who may upgrade the engine unasked; null when nobody., type: dict, returned: always}
problems: {description: What could not be found out; each with C(code) and C(why)., type: list, returned: always}
"""

SPEC: dict[str, Any] = {
    "fleet": {"type": "str", "default": "modelyard"},
    "home": {"type": "path", "required": True},
    "adopt": {"type": "list", "elements": "str", "default": []},
    "docker": {"type": "bool", "default": False},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "ports": {"type": "str", "default": ""},
    "settings": {"type": "list", "elements": "path", "default": []},
    "secrets": {"type": "list", "elements": "path", "default": []},
    "rules": {"type": "path", "default": "/etc/nftables.d/modelyard.nft"},
    "timeout_s": {"type": "float", "default": 20.0},
}
CONTAINERS = "containers"
"""In place of a code: nothing is known of any container."""

_PROC = Path("/proc")
_ROOT = Path("/")


def containers(
    params: dict[str, Any], options: list[str], problems: machine.Problems
) -> list[dict[str, Any]]:
    """Every container of the host, in one round; none, and a problem, where the engine does not answer."""
    ask = engine(Path(params["docker_socket"]), params["timeout_s"])
    try:
        listed = ask("/containers/json?all=true") or []
        inspected = [ask(f"/containers/{quote(item['Id'])}/json") for item in listed]
        found = [
            described(item, params["fleet"], params["adopt"], params["docker_socket"], options)
            for item in inspected
            if item  # one that went away while we looked
        ]
    except (EngineError, KeyError, TypeError, ValueError) as error:
        problems.append(machine.problem(CONTAINERS, error))
        return []
    return [item for item in found if item["kind"] != FOREIGN or item["socket"]]


def collect(params: dict[str, Any]) -> dict[str, Any]:
    """Everything, as plain data."""
    problems: machine.Problems = []
    home, socket = Path(params["home"]).expanduser(), Path(params["docker_socket"])
    settings = [Path(path).expanduser() for path in params["settings"]]
    secrets = [Path(path).expanduser() for path in params["secrets"]]
    daemon = machine.daemon(_PROC, _ROOT, problems, expected=params["docker"])
    try:
        mode = machine.mode_of(socket)
    except OSError as error:
        mode = None
        problems.append(machine.problem("docker-socket-open", error))
    return {
        "containers": containers(params, daemon["options"], problems) if params["docker"] else [],
        "programs": machine.programs(home, problems) if params["ports"] else [],
        "listening": [
            {"address": address, "port": port}
            for address, port in machine.listening(_PROC)
            if params["ports"] and within(port, [params["ports"]])
        ],
        "daemon": daemon,
        "docker_socket": {"path": str(socket), "mode": mode} if mode else None,
        "files": machine.secret_files(home, settings, secrets, problems),
        "admin_key": machine.admin_key(settings, problems),
        "firewall": machine.firewall(Path(params["rules"]), problems),
        "upgrades": machine.upgrades(_ROOT, problems) if params["docker"] else None,
        "problems": problems,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    module.exit_json(changed=False, **json.loads(json.dumps(collect(module.params))))


if __name__ == "__main__":
    main()
