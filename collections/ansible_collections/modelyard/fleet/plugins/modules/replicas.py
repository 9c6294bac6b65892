#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring all replicas of one host to what is wished, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: replicas
short_description: Bring all replicas of one host to what is wished
description:
  - Starts, replaces and stops the replicas of one host, each in a thread of its own, as containers or as supervised
    processes. A replica that runs as wished is left alone.
  - A running container is compared in full with what it should be created from, so what was changed by hand or is
    no longer wished is found; the result says what differs.
  - What carries the label of another fleet, or none, is never touched. What is paused or of unknown state is left
    alone. An assignment with C(adopted) is fulfilled by a container that was started by other means, and is left
    alone as well; one with C(replaces) takes such a container's place, which is stopped and never removed.
    When the container engine cannot be used, nothing is changed.
  - Values of the environment are never logged, shown or returned.
  - The container runtime needs the Docker SDK for Python on the host (python3-docker).
author: Modelyard contributors (@modelyard)
options:
  fleet:
    description: Value of the label C(modelyard.fleet), and the prefix of container names.
    type: str
    default: modelyard
  home:
    description: Directory on the host for the C(process) runtime's files.
    type: path
    required: true
  docker_socket:
    description: Socket of the container engine.
    type: path
    default: /var/run/docker.sock
  supervisord:
    description: >-
      The supervisord to start. Default is the one beside the Python that runs the module, else that of the environment
      C(venv) in O(home).
    type: path
  state:
    description:
      - C(applied) runs what O(replicas) says and stops O(stops).
      - C(put_back) removes the replicas and starts what O(keep_previous) kept in their place.
      - C(confirmed) removes what was kept, of each replica that runs.
    type: str
    choices: [applied, put_back, confirmed]
    default: applied
  replicas:
    description: Assignments of this host as the planner makes them. Replicas that are not named are never touched.
    type: list
    elements: dict
    default: []
  stops:
    description: Replicas to stop and remove, with all that is theirs.
    type: list
    elements: dict
    default: []
    suboptions:
      replica: {description: The replica's id., type: str, required: true}
      runtime: {description: Where it runs., type: str, choices: [docker, process], required: true}
      container: {description: Id of the adopted container that it is; stopped and never removed., type: str}
  keep_previous:
    description:
      - Keep what is replaced, stopped, until it is put back or the replacement is confirmed. A container is kept under
        its name with C(.previous). What is kept already stays, as it is what was confirmed last.
    type: bool
    default: false
  restart:
    description: Ids of replicas that are replaced even where they run as wished.
    type: list
    elements: str
    default: []
  pull:
    description: Pull images that the host does not have. Images that it has are never pulled again.
    type: bool
    default: true
  engine_foreseen:
    description:
      - An earlier task of this check would have installed the container engine. In check mode it is not asked then, and
        has no container. Out of check mode this means nothing.
    type: bool
    default: false
  stop_timeout_s:
    description: Seconds between SIGTERM and SIGKILL for a replica whose own value is not known.
    type: int
    default: 120
  prove_s:
    description:
      - Ask each replica that is left as it is for a generation, which may take so many seconds; 0 asks none. The result
        says of each whether it gave one. None that does not fails the module.
    type: float
    default: 0
attributes:
  check_mode:
    description: Compares as it does otherwise and says what would happen.
    support: full
  diff_mode:
    description: Shows what differs, values of the environment as digests.
    support: full
"""

EXAMPLES = r"""
- name: Run this host's share of the plan
  modelyard.fleet.replicas:
    home: /var/lib/modelyard
    replicas: "{{ __fleet_plan.plan.hosts[inventory_hostname].replicas }}"
    stops: "{{ __fleet_plan.plan.hosts[inventory_hostname].stops }}"
    keep_previous: true

- name: Make it final
  modelyard.fleet.replicas:
    home: /var/lib/modelyard
    replicas: "{{ __fleet_plan.plan.hosts[inventory_hostname].replicas }}"
    state: confirmed
"""

RETURN = r"""
replicas:
  description: >-
    One entry for each of O(stops), then of O(replicas), failed or not: C(replica), C(runtime), C(action) (start,
    replace, keep, stop, put_back, discard), C(reason), C(changed), C(differences) (each with C(field), C(wanted),
    C(found)), C(took_s), C(image_id), C(image_digest), C(notes), C(error) (empty when all went well) and, with
    O(prove_s), C(proved).
  returned: always
  type: list
  elements: dict
lines:
  description: What happened to the replicas that were not just left alone, in words.
  returned: always
  type: list
  elements: str
"""

import json
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import probe
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.engine import (
    Engine,
    EngineError,
    ForeseenEngine,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.containers.reconcile import (
    Reconciler,
    Wish,
    masked,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.process_replicas import Processes
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import (
    Home,
    Supervisor,
    SupervisorError,
    executable,
)

SPEC: dict[str, Any] = {
    "fleet": {"type": "str", "default": "modelyard"},
    "home": {"type": "path", "required": True},
    "docker_socket": {"type": "path", "default": "/var/run/docker.sock"},
    "supervisord": {"type": "path"},
    "state": {"type": "str", "choices": ["applied", "put_back", "confirmed"], "default": "applied"},
    # not for the log; see main() for what becomes of the result
    "replicas": {"type": "list", "elements": "dict", "default": [], "no_log": True},
    "stops": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "replica": {"type": "str", "required": True},
            "runtime": {"type": "str", "choices": ["docker", "process"], "required": True},
            "container": {"type": "str"},
        },
    },
    "keep_previous": {"type": "bool", "default": False},
    "restart": {"type": "list", "elements": "str", "default": []},
    "pull": {"type": "bool", "default": True},
    "stop_timeout_s": {"type": "int", "default": 120},
    "prove_s": {"type": "float", "default": 0},
    "engine_foreseen": {"type": "bool", "default": False},
}
RUNTIMES = ("docker", "process")


def reconcile(params: dict[str, Any], check: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """The results, stops first, and notes. Raises what ``main`` catches, when nothing was touched."""
    replicas: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNTIMES}
    stops: dict[str, list[str]] = {name: [] for name in RUNTIMES}
    for assignment in params["replicas"]:
        runtime = assignment["runtime"]
        if runtime not in replicas:
            raise ValueError(
                f"{assignment['replica']}: there is no runtime {runtime} here, only {', '.join(RUNTIMES)}"
            )
        replicas[runtime].append(assignment)
    for stop in params["stops"]:
        stops[stop["runtime"]].append(stop["replica"])
    named = [one["replica"] for one in params["replicas"]]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise ValueError(f"named twice in replicas: {', '.join(twice)}")

    processes = Processes(
        Supervisor(Home(Path(params["home"]))),
        executable(Path(params["home"]), params["supervisord"], sys.executable),
        sys.executable,
        check,
        params["stop_timeout_s"],
        frozenset(params["restart"]),
    )
    wish = Wish(
        params["fleet"],
        Path(params["home"]),
        params["state"],
        params["keep_previous"],
        params["pull"],
        check,
        params["stop_timeout_s"],
        frozenset(params["restart"]),
    )
    if replicas["process"] or stops["process"]:
        processes.supervisor.running()  # raises when nobody can tell
    engine: Engine | None = None
    if replicas["docker"] or stops["docker"]:
        foreseen = check and params["engine_foreseen"]
        engine = ForeseenEngine() if foreseen else Engine(params["docker_socket"])
    try:
        reconciler = engine and Reconciler(engine, wish)
        if reconciler:
            reconciler.refuse_conflicts(replicas["docker"])
        # a replica that changes its runtime stops in the one before it starts in the other
        ended = processes.stop(stops["process"])
        taken = {stop["replica"]: stop["container"] for stop in params["stops"] if stop.get("container")}
        contained = reconciler.run(replicas["docker"], stops["docker"], taken) if reconciler else []
        notes: list[str] = []
        names = [one["replica"] for one in replicas["process"]]
        if params["state"] == "applied":
            running, notes = processes.apply(replicas["process"], params["keep_previous"])
        elif params["state"] == "put_back":
            running = processes.put_back(names)
        else:
            running = processes.confirm(names)
    finally:
        if engine:
            engine.close()
    return ended + contained + running, notes


def prove(assignments: list[dict[str, Any]], results: list[dict[str, Any]], limit_s: float) -> None:
    """Say in the results which replicas were left as they are and give an answer now."""
    kept = {one["replica"] for one in results if one["action"] == "keep" and not one["error"]}
    well = probe.proved([one for one in assignments if one["replica"] in kept], limit_s)
    for one in results:
        one["proved"] = one["replica"] in well


def differs(result: dict[str, Any]) -> dict[str, str]:
    """What ``--diff`` shows of one result."""
    sides = {
        side: {one["field"]: one[side] for one in result["differences"] if one[side] is not None}
        for side in ("found", "wanted")
    }
    about = f"{result['replica']}: {result['action']}, {result['reason']}"

    def text(values: dict[str, Any], line: str) -> str:
        shown = json.dumps(values, indent=1, sort_keys=True) + "\n" if values else ""
        return shown + line

    before, after = {
        "start": ("not running\n", "running\n"),
        "stop": ("running\n", "removed\n"),
        "put_back": ("the replacement\n", "what it replaced\n"),
        "discard": ("the previous one is kept\n", "the previous one is gone\n"),
    }.get(result["action"], ("", ""))
    return {
        "before_header": about,
        "after_header": about,
        "before": text(sides["found"], before),
        "after": text(sides["wanted"], after),
    }


def line(result: dict[str, Any]) -> str:
    """One result in words."""
    said = f"{result['replica']}: {result['action']}, {result['reason']}"
    return f"{said}: FAILED: {result['error']}" if result["error"] else said


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    # Every string of the assignments counts as secret so far, and would be cut out of the result wherever it occurs, of
    # names and reasons too. What is secret in them, the values of the environment, is in no result: they are digests
    # in differences, and masked in errors.
    module.no_log_values.clear()
    shown = {"module_args": {name: value for name, value in params.items() if name != "replicas"}}
    results: list[dict[str, Any]] = []
    try:
        results, notes = reconcile(params, module.check_mode)
        if params["prove_s"] > 0:
            prove(params["replicas"], results, params["prove_s"])
    except KeyError as error:
        module.fail_json(msg=f"an assignment has no {error}: is it from the planner?", invocation=shown)
    except (EngineError, SupervisorError, ValueError, OSError, xmlrpc.client.Error) as error:
        said = str(error)
        for assignment in params["replicas"]:
            said = masked(said, assignment)
        module.fail_json(
            msg=f"{said}. Nothing was started or stopped on this host",
            replicas=[],
            lines=[],
            invocation=shown,
        )
    for result in results:
        notes += result.pop("notes")
    outcome = {
        "changed": any(result["changed"] for result in results),
        "replicas": results,
        "lines": [line(one) for one in results if one["changed"] or one["error"]]
        + [f"{one['replica']}: {one['reason']}" for one in results if "left alone" in one["reason"]]
        + notes,
        "diff": [differs(one) for one in results if one["changed"]],
        "invocation": shown,
    }
    failed = [one for one in results if one["error"]]
    if failed:
        module.fail_json(msg="\n".join(f"{one['replica']}: {one['error']}" for one in failed), **outcome)
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
