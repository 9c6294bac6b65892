#!/usr/bin/python
"""Ansible module: programs under one unprivileged supervisord."""

from __future__ import annotations

import re
import sys
import xmlrpc.client
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import programs as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.sizes import size_bytes
from ansible_collections.modelyard.fleet.plugins.module_utils.supervisor import (
    Home,
    Program,
    Supervisor,
    SupervisorError,
    executable,
)

DOCUMENTATION = r"""
module: supervised_program
short_description: Programs under one unprivileged supervisord
description:
  - Keeps programs running under a supervisord that belongs to one home directory and is started when needed.
  - A program that runs as wished is left alone; one that changed is restarted, and the result says why.
  - Commands and environments lie in files of mode 0600 and never on a command line that other users see.
  - Programs that are not named are never touched. When the last one is removed, supervisord ends too.
options:
  home:
    description: Directory that holds C(supervisor/) and C(process/).
    type: path
    required: true
  supervisord:
    description: >-
      The supervisord to start. Default is the one beside the Python that runs the module, else that of the environment
      C(venv) in O(home).
    type: path
  state:
    description: Whether the programs should run or be gone.
    type: str
    choices: [present, absent]
    default: present
  programs:
    description: The programs. C(absent) needs their names only.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Unique name within the home., type: str, required: true}
      command: {description: The words of the command., type: list, elements: str, default: []}
      environment: {description: Variables added to the environment., type: dict, default: {}}
      directory: {description: Working directory; default is the program's own., type: path}
      hash: {description: Identity of the wished configuration., type: str, default: ''}
      spec: {description: What may be known about it (no secrets)., type: dict, default: {}}
      stop_timeout_s: {description: Seconds between SIGTERM and SIGKILL., type: int, default: 30}
      log_max_size: {description: 'Size at which its log is rotated (C(50m)).', type: str, default: 50m}
      log_max_files: {description: Number of log files kept., type: int, default: 5}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Keep one program running
  modelyard.fleet.supervised_program:
    home: /home/me/.local/state/modelyard
    programs:
      - name: echo
        command: [/usr/bin/python3, -m, http.server, --bind, 127.0.0.1, "8100"]
"""

RETURN = r"""
programs:
  description: >-
    One entry per program with C(name), C(action), C(reason), C(state), C(pid) and C(recorded), the spec that it was
    last given.
  type: list
  returned: always
notes:
  description: Sentences about what had to be cleaned up.
  type: list
  returned: always
"""

SPEC: dict[str, Any] = {
    "home": {"type": "path", "required": True},
    "supervisord": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "programs": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "default": []},
            "environment": {"type": "dict", "default": {}, "no_log": False},
            "directory": {"type": "path"},
            "hash": {"type": "str", "default": ""},
            "spec": {"type": "dict", "default": {}},
            "stop_timeout_s": {"type": "int", "default": 30},
            "log_max_size": {"type": "str", "default": "50m"},
            "log_max_files": {"type": "int", "default": 5},
        },
    },
}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def _fail_on(errors: dict[str, str]) -> None:
    if errors:
        raise SupervisorError("; ".join(errors.values()))


def _program(item: dict[str, Any]) -> Program:
    if not _NAME.fullmatch(item["name"]):
        raise SupervisorError(
            f"{item['name']!r} cannot name a program: use letters, digits, dot, dash, underscore"
        )
    return Program(
        name=item["name"],
        command=tuple(item["command"]),
        environment={str(key): str(value) for key, value in item["environment"].items()},
        directory=item["directory"],
        hash=item["hash"],
        spec=item["spec"],
        stop_timeout_s=item["stop_timeout_s"],
        log_bytes=size_bytes(item["log_max_size"]),
        log_files=item["log_max_files"],
    )


def _present(module: AnsibleModule, supervisor: Supervisor, programs: list[Program]) -> dict[str, Any]:
    for program in programs:
        if not program.command:
            raise SupervisorError(f"{program.name} has no command")
    home = supervisor.home
    home.check()
    supervisord = executable(home.root, module.params["supervisord"], sys.executable)
    running = supervisor.running()
    before = lib.states(supervisor, running)
    steps = [lib.decide(home, program, sys.executable, before.get(program.name)) for program in programs]
    changing = {step.name for step in steps if step.action != "keep"}
    diff = [lib.diff_of(home, program) for program in programs if program.name in changing]
    notes: list[str] = []
    after = before
    if changing and not module.check_mode:
        notes, errors = lib.apply_present(supervisor, supervisord, sys.executable, programs, steps)
        _fail_on(errors)
        after = lib.states(supervisor, True)
    return {
        "changed": bool(changing),
        "programs": lib.report(home, steps, after),
        "notes": notes,
        "diff": diff,
    }


def _absent(module: AnsibleModule, supervisor: Supervisor, programs: list[Program]) -> dict[str, Any]:
    home = supervisor.home
    steps = [
        lib.Step(program.name, "stop", "is no longer wanted")
        if lib.exists(home, program.name)
        else lib.Step(program.name, "keep", "is not there")
        for program in programs
    ]
    names = [step.name for step in steps if step.action == "stop"]
    changed = bool(names) or lib.idle_supervisor(home)
    if changed and not module.check_mode:
        grace = max([program.stop_timeout_s for program in programs], default=30)
        _fail_on(lib.apply_absent(supervisor, names, grace))
    return {"changed": changed, "programs": lib.report(home, steps, {}), "notes": [], "diff": []}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        programs = [_program(item) for item in module.params["programs"]]
        names = [program.name for program in programs]
        if len(set(names)) != len(names):
            raise SupervisorError("two programs have the same name: " + ", ".join(sorted(names)))
        supervisor = Supervisor(Home(Path(module.params["home"])))
        act = _present if module.params["state"] == "present" else _absent
        outcome = act(module, supervisor, programs)
    except (SupervisorError, ValueError, OSError, xmlrpc.client.Error) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
