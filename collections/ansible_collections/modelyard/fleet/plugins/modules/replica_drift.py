#!/usr/bin/python
"""Ansible module: how the replicas and weights of a host differ from what is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.drift import containers, processes, weights
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import WeightsError
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import Home

DOCUMENTATION = r"""
module: replica_drift
short_description: How the replicas and weights of a host differ from what is declared
description:
  - Compares each replica's container or process with what it would be started from, field by field, and each
    directory of weights with its declared source. Changes nothing.
  - Values of the environment are compared and never returned; C(sha256:) and 12 digits stand for them.
options:
  replicas: {description: Assignments of the plan for this host., type: list, elements: dict, required: true}
  weights: {description: What the role model_weights would bring to this host., type: list, elements: dict, default: []}
  fleet: {description: Name of the fleet., type: str, default: modelyard}
  home: {description: The fleet's directory on this host., type: path, required: true}
  docker_socket: {description: Socket of the container engine., type: path, default: /var/run/docker.sock}
  docker: {description: Whether to ask the container engine., type: bool, default: false}
  timeout_s: {description: Seconds that the container engine has for one answer., type: float, default: 20.0}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Compare this host with the plan
  modelyard.fleet.replica_drift:
    replicas: "{{ __fleet_plan.plan.hosts[inventory_hostname].replicas }}"
    home: /var/lib/modelyard
"""

RETURN = r"""
replicas:
  description: One entry per replica that could be compared, with C(replica) and C(differences).
  type: list
  returned: always
weights:
  description: One entry per directory that differs, with C(destination), C(field), C(wanted) and C(found).
  type: list
  returned: always
leftovers:
  description: Containers of this fleet beside the replicas' own, with C(name), C(replica), C(state) and C(why).
  type: list
  returned: always
problems:
  description: What could not be compared, and why.
  type: list
  returned: always
"""

SPEC: dict[str, Any] = {
    "replicas": {"type": "list", "elements": "dict", "required": True},
    "weights": {"type": "list", "elements": "dict", "default": []},
    "fleet": {"type": "str", "default": "modelyard"},
    "home": {"type": "path", "required": True},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "docker": {"type": "bool", "default": False},
    "timeout_s": {"type": "float", "default": 20.0},
}

Answer = dict[str, Any]


def compare_processes(params: dict[str, Any], answer: Answer) -> None:
    """The replicas of the process runtime; each that cannot be compared is told alone."""
    home = Home(Path(params["home"]))
    for assignment in params["replicas"]:
        replica = assignment["replica"]
        if assignment["runtime"] != "process" or not home.program_folder(replica).exists():
            continue
        try:
            found = processes.differences(home, assignment)
        except (OSError, KeyError, TypeError, ValueError) as error:
            answer["problems"].append(f"{replica}: cannot be compared: {type(error).__name__}: {error}")
            continue
        answer["replicas"].append({"replica": replica, "differences": found})


def compare_containers(params: dict[str, Any], answer: Answer) -> None:
    """The replicas in containers, and what is left of earlier ones."""
    ask = containers.engine(Path(params["docker_socket"]), params["timeout_s"])
    try:
        running, answer["leftovers"] = containers.containers_of_fleet(ask, params["fleet"])
        for assignment in params["replicas"]:
            inspected = running.get(assignment["replica"])
            if assignment["runtime"] != "docker" or inspected is None:
                continue
            found = containers.container_differences(ask, params["fleet"], assignment, inspected)
            answer["replicas"].append({"replica": assignment["replica"], "differences": found})
    except containers.EngineError as error:
        answer["problems"].append(f"the containers cannot be compared: {error}")
    except (KeyError, TypeError, ValueError) as error:
        answer["problems"].append(f"a container cannot be compared: {type(error).__name__}: {error}")


def compare_weights(params: dict[str, Any], answer: Answer) -> None:
    """Every directory of weights that the wished replicas read."""
    for item in params["weights"]:
        try:
            found = weights.weights_difference(item)
        except (WeightsError, OSError) as error:
            answer["problems"].append(f"weights of {item['model']}: {error}")
            continue
        if found:
            answer["weights"].append({"model": item["model"], **found})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    answer: Answer = {"replicas": [], "weights": [], "leftovers": [], "problems": []}
    compare_processes(module.params, answer)
    if module.params["docker"]:
        compare_containers(module.params, answer)
    compare_weights(module.params, answer)
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
