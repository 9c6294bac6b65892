#!/usr/bin/python
"""Ansible module: wait until a host's replicas answer, and let them generate."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import probe
from ansible_collections.modelyard.fleet.plugins.module_utils.golden import read as read_golden
from ansible_collections.modelyard.fleet.plugins.module_utils.postmortem import (
    ContainerWatch,
    ProcessWatch,
    UnitWatch,
)

DOCUMENTATION = r"""
module: replica_ready
short_description: Wait until a host's replicas answer, and let them generate
description:
  - Waits for all replicas of a host at once, in threads. Changes nothing.
  - A replica whose process has ended for good is given up at once, and its last log lines are shown.
  - With O(generate) each replica must answer a real prompt.
options:
  replicas:
    description: >-
      Assignments of this host as the planner makes them (C(replica), C(runtime), C(spec)). The runtime may be
      C(systemd) too; the replica is then the name of a unit.
    type: list
    elements: dict
    required: true
  generate:
    description: Whether to ask each replica for a generation.
    type: bool
    default: false
  golden:
    description: >-
      Whether to ask for the C(golden) answer of an assignment that has one, in place of any answer.
    type: bool
    default: false
  since:
    description: >-
      By replica, the C(since) of an earlier look, so that restarts are counted from there.
    type: dict
    default: {}
  progress:
    description: >-
      Wait in short looks from the controller, and print what is waited for; the action of the same name does that.
    type: bool
    default: false
  generation_timeout_s:
    description: Seconds that one generation may take.
    type: float
    default: 120.0
  deadline_s:
    description: Seconds to wait for each replica; default is its C(spec.start_period_s).
    type: float
  fleet:
    description: Value of the label C(modelyard.fleet).
    type: str
    default: modelyard
  home:
    description: Home directory of the C(process) runtime, for logs and exit states.
    type: path
  docker_socket:
    description: Socket of the container engine, for logs and exit states.
    type: path
    default: /var/run/docker.sock
  log_lines:
    description: Log lines to show of a replica that failed.
    type: int
    default: 20
  fail:
    description: Whether a replica that is not ready fails the module.
    type: bool
    default: true
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Wait for this host's replicas
  modelyard.fleet.replica_ready:
    replicas: "{{ model_server_replicas }}"
    generate: true
"""

RETURN = r"""
replicas:
  description: >-
    One entry per replica with C(replica), C(url), C(live), C(ready), C(ok), C(waited_s), C(text), C(generation_s),
    C(error), C(ended) (it will not come up any more), C(since) and C(log).
  type: list
  returned: always
"""

SPEC: dict[str, Any] = {
    "replicas": {"type": "list", "elements": "dict", "required": True},
    "generate": {"type": "bool", "default": False},
    "golden": {"type": "bool", "default": False},
    "since": {"type": "dict", "default": {}},
    "progress": {"type": "bool", "default": False},
    "generation_timeout_s": {"type": "float", "default": 120.0},
    "deadline_s": {"type": "float"},
    "fleet": {"type": "str", "default": "modelyard"},
    "home": {"type": "path"},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "log_lines": {"type": "int", "default": 20},
    "fail": {"type": "bool", "default": True},
}


def _watch(
    assignment: dict[str, Any], params: dict[str, Any]
) -> ContainerWatch | ProcessWatch | UnitWatch | None:
    runtime = assignment.get("runtime") or assignment["spec"].get("runtime")
    since = params["since"].get(assignment["replica"])
    if runtime == "docker":
        return ContainerWatch(assignment["replica"], params["fleet"], Path(params["docker_socket"]), since)
    if runtime == "process" and params["home"]:
        return ProcessWatch(assignment["replica"], Path(params["home"]), since)
    return UnitWatch(assignment["replica"]) if runtime == "systemd" else None


def _check(assignment: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    target = probe.target_of(assignment, params["deadline_s"])
    watch = _watch(assignment, params)
    outcome = probe.wait_ready(target, watch.gone if watch else lambda: None)
    if outcome.ready and params["generate"]:
        golden = read_golden(assignment.get("golden")) if params["golden"] else None
        probe.generate(target, outcome, params["generation_timeout_s"], golden=golden)
    # an answer that is not the right one says more than the log
    log = watch.log(params["log_lines"]) if watch and not outcome.ok and not outcome.text else []
    return {**vars(outcome), "log": log, "since": watch.since if watch else None}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    assignments = params["replicas"]
    results: list[dict[str, Any]] = []
    if assignments:
        try:
            with ThreadPoolExecutor(max_workers=min(len(assignments), probe.MOST_AT_ONCE)) as pool:
                results = list(pool.map(lambda item: _check(item, params), assignments))
        except (KeyError, TypeError, ValueError) as error:
            module.fail_json(msg=f"an assignment is incomplete: {type(error).__name__}: {error}")
    failure = probe.failure_text(results)
    if failure and params["fail"]:
        module.fail_json(msg=failure, replicas=results)
    module.exit_json(changed=False, replicas=results)


if __name__ == "__main__":
    main()
