#!/usr/bin/python
"""Ansible module: the nftables table of the fleet, its file and what is in force."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import nft
from ansible_collections.modelyard.fleet.plugins.module_utils.files import write_atomically

DOCUMENTATION = r"""
module: nft_table
short_description: The nftables table of the fleet
description:
  - Brings the table C(inet modelyard) to what a file of rules says, and keeps that file for the next start of the host.
  - The rules are judged by the kernel first (C(nft -c)), then loaded in one step; rules that do not load leave the
    ones before them in force, and their file as it is. No other table is touched.
  - What is in force is compared with what the kernel would make of the file, so that rules changed by hand are noticed.
options:
  path: {description: The file of rules on the host., type: path, required: true}
  content: {description: "The rules, which must replace the table whole; not for C(absent).", type: str, default: ""}
  owner:
    description: A line that the file must have. One that is there without it belongs to somebody else and is refused.
    type: str
    default: ""
  state: {description: Whether there is such a table., type: str, choices: [present, absent], default: present}
attributes:
  check_mode: {description: "Judges the rules and says what would change; nothing is loaded.", support: full}
  diff_mode: {description: The difference of the rules in force., support: full}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Close the ports
  modelyard.fleet.nft_table:
    path: /etc/nftables.d/modelyard.nft
    content: "{{ lookup('ansible.builtin.template', 'modelyard.nft.j2') }}"
"""

RETURN = r"""
was:
  description: How the table was found, C(missing), C(same), C(different) or C(unknown) (nft is not installed).
  type: str
  returned: always
"""

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str", "default": ""},
    "owner": {"type": "str", "default": ""},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
_MODE = 0o644


def written(module: AnsibleModule, path: Path) -> str | None:
    """The file as it is; None when there is none. One of another owner ends the module."""
    text = path.read_text(encoding="utf-8") if path.exists() else None
    owner = module.params["owner"]
    if text is not None and owner and owner not in text.splitlines():
        module.fail_json(
            msg=f"{path} was written for another fleet (it lacks the line {owner!r}), and a host has one such table: "
            "nothing was changed. Take that one away first (host_hardening_state: absent, as the other fleet)."
        )
    return text


def present(module: AnsibleModule, path: Path, content: str) -> dict[str, Any]:
    """The table and its file as wished."""
    before = written(module, path)
    command = nft.find()
    if command is None:
        if not module.check_mode:
            module.fail_json(msg="nft is not installed on this host: install the package nftables")
        module.warn("nft is not installed yet, so nobody has judged the rules")
        diff = {
            "before": before or "",
            "after": content,
            "before_header": str(path),
            "after_header": str(path),
        }
        return {"changed": True, "was": "unknown", "diff": diff}
    # beside its place, so that it can be moved there in one step; in check mode that may not be there
    directory = path.parent if not module.check_mode else None
    descriptor, name = tempfile.mkstemp(prefix=".modelyard-", suffix=".part", dir=directory)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
        nft.check(command, part)
        wanted, found = nft.normal_form(part), nft.in_force(command)
        if found != wanted and not module.check_mode:
            nft.load(command, part)
    finally:
        part.unlink()
    rewritten = before != content or path.stat().st_mode & 0o7777 != _MODE
    if rewritten and not module.check_mode:
        write_atomically(path, content.encode(), _MODE)
    was = "missing" if found is None else "same" if found == wanted else "different"
    diff = {"before": found or "", "after": wanted, "before_header": "in force", "after_header": str(path)}
    return {"changed": found != wanted or rewritten, "was": was, "diff": diff}


def absent(module: AnsibleModule, path: Path) -> dict[str, Any]:
    """Neither table nor file."""
    command = nft.find()
    found = nft.in_force(command) if command else None
    there = written(module, path) is not None
    if not module.check_mode:
        if command and found is not None:
            nft.remove(command)
        path.unlink(missing_ok=True)
    was = "unknown" if command is None else "missing" if found is None else "different"
    diff = {"before": found or "", "after": "", "before_header": "in force", "after_header": "in force"}
    return {"changed": there or found is not None, "was": was, "diff": diff}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    path = Path(module.params["path"])
    try:
        result = (
            absent(module, path)
            if module.params["state"] == "absent"
            else present(module, path, module.params["content"])
        )
    except (nft.NftError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
