#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: a program's configuration as one directory, judged before it replaces the last one."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: config_generation
short_description: A program's configuration as one directory, judged before it replaces the last one
description:
  - Keeps the files of a configuration, keys included, as numbered directories below O(root); the link C(current) leads
    to the one that the program is to read, the link C(good) to the one that it is known to have run with.
  - A new one is written aside, judged by the program itself (O(validate)), and put in place in one step. One that is
    refused leaves everything as it was.
  - Everything is readable by its owner alone. Secrets are neither in the result nor in the difference that is shown.
author: Modelyard contributors (@modelyard)
options:
  root: {description: The directory that holds the generations., type: path, required: true}
  state:
    description:
      - C(present) makes a generation where the files are others than those of the current one.
      - C(in_force) notes that the program runs with the current one.
      - C(put_back) goes back to the one that it ran with last.
      - C(absent) removes all of it.
    type: str
    choices: [present, in_force, put_back, absent]
    default: present
  files:
    description: Text of each file by its path within; C(@GENERATION@) in it becomes the number of the generation.
    type: dict
    default: {}
  secrets:
    description: The same for files whose text is never shown.
    type: dict
    default: {}
  gathered:
    description: Files made of files on the host, by their paths within; each is a list of paths that are put together.
    type: dict
    default: {}
  validate:
    description: Command that judges a generation, C({directory}) in it stands for its directory. Status 0 is well.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Judges the files, where the program is installed, and says what would change.
    support: full
  diff_mode:
    description: Shows O(files) before and after, of the others only their names.
    support: full
"""

EXAMPLES = r"""
- name: Write the configuration
  modelyard.fleet.config_generation:
    root: /etc/modelyard-edge/haproxy
    files: {haproxy.cfg: "{{ lookup('ansible.builtin.template', 'haproxy.cfg.j2') }}"}
    secrets: {certificates/main.pem: "{{ vault_certificate_and_key }}"}
    validate: [/usr/sbin/haproxy, -c, -f, "{directory}/haproxy.cfg"]
  register: __edge_haproxy
"""

RETURN = r"""
generation:
  description: Number of the current generation; in check mode that of the one that would be made. 0 where there is none.
  returned: always
  type: int
pending:
  description: Whether the program is not known to run with it, so that it must be told.
  returned: always
  type: bool
"""

import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import generations
from ansible_collections.modelyard.fleet.plugins.module_utils.generations import GenerationError
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run

SPEC: dict[str, Any] = {
    "root": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "in_force", "put_back", "absent"], "default": "present"},
    "files": {"type": "dict", "default": {}},
    "secrets": {"type": "dict", "default": {}, "no_log": True},
    "gathered": {"type": "dict", "default": {}, "no_log": False},
    "validate": {"type": "list", "elements": "str", "default": []},
}
_VALIDATE_S = 30
_HIDDEN = "(not shown)\n"


def wanted(params: dict[str, Any]) -> dict[str, bytes]:
    """All files of the wish by their paths within. Raises ``GenerationError``."""
    found: dict[str, bytes] = {}
    for name, text in [*params["files"].items(), *params["secrets"].items()]:
        found[name] = generations.ended(str(text).encode())
    for name, paths in params["gathered"].items():
        found[name] = b"".join(generations.ended(_read(Path(path))) for path in paths)
    for name in found:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise GenerationError(f"{name!r} leads out of the configuration's own directory")
    return found


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GenerationError(f"{path} cannot be read on this host: {error.strerror}") from error
    if not data.strip():
        raise GenerationError(f"{path} is empty")
    return data


def judged(module: AnsibleModule, place: Path) -> None:
    """Let the program look at a directory. Raises ``GenerationError`` with its words."""
    command = [word.replace("{directory}", str(place)) for word in module.params["validate"]]
    if not command:
        return
    if shutil.which(command[0]) is None:
        if not module.check_mode:
            raise GenerationError(f"{command[0]} is not installed, so nobody can judge the configuration")
        module.warn(f"{command[0]} is not installed yet, so nobody has judged the configuration")
        return
    code, out, err = run(command, _VALIDATE_S)
    if code != 0:
        said = "\n".join(part.strip() for part in (err, out) if part.strip()) or f"exit status {code}"
        said = said.replace(f"{place}{os.sep}", "")
        raise GenerationError(
            f"{Path(command[0]).name} refuses the configuration, and what was there stays: {said}"
        )


def present(module: AnsibleModule, root: Path) -> dict[str, Any]:
    """The wished files as the current generation."""
    files = wanted(module.params)
    number = generations.number_of(root, generations.CURRENT)
    there = generations.contents(root, generations.CURRENT) or {}
    same = number is not None and there == generations.numbered(files, number)
    if same and not generations.loose(root):
        pending = number != generations.number_of(root, generations.GOOD)
        return {"changed": False, "generation": number, "pending": pending}
    if module.check_mode:
        made = generations.next_number(root)
        with generations.tried(generations.numbered(files, made), None) as place:
            judged(module, place)
    else:
        made = generations.take(root, files, lambda place: judged(module, place))
    after = generations.numbered(files, made)
    return {
        "changed": True,
        "generation": made,
        "pending": True,
        "diff": _difference(root, there, after, set(module.params["files"])),
    }


def _difference(
    root: Path, before: dict[str, bytes], after: dict[str, bytes], shown: set[str]
) -> list[dict[str, str]]:
    out = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        # a file that is no longer wished may be one that was secret
        hidden = name not in shown
        out.append(
            {
                "before_header": f"{root}/{name}",
                "after_header": f"{root}/{name}",
                "before": "" if old is None else _HIDDEN if hidden else old.decode(errors="replace"),
                "after": "" if new is None
                else f"another {_HIDDEN}" if hidden and old is not None
                else _HIDDEN if hidden
                else new.decode(errors="replace"),
            }
        )  # fmt: skip
    return out


def follow(module: AnsibleModule, root: Path, state: str) -> dict[str, Any]:
    """What became of the current generation, noted or undone."""
    number = generations.number_of(root, generations.CURRENT)
    good = generations.number_of(root, generations.GOOD)
    if state == "absent":
        there = root.exists()
        if there and not module.check_mode:
            shutil.rmtree(root)
        return {"changed": there, "generation": 0, "pending": False}
    if module.check_mode:
        left = number if state == "in_force" else good
        return {"changed": state == "put_back" and number != good, "generation": left or 0, "pending": False}
    if state == "in_force":
        generations.in_force(root)
        return {"changed": False, "generation": number, "pending": False}
    return {"changed": number != good, "generation": generations.put_back(root) or 0, "pending": False}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    root, state = Path(module.params["root"]), module.params["state"]
    try:
        result = present(module, root) if state == "present" else follow(module, root, state)
    except (GenerationError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
