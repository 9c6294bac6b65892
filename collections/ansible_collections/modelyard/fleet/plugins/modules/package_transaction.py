#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: packages that come and packages that go, in one transaction."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.transaction import apt, dnf, text

DOCUMENTATION = r"""
module: package_transaction
short_description: Install and remove packages in one transaction, and hold them
description:
  - Gives the package manager everything at once, so that a set of packages that needs one version of each other is
    changed whole or not at all. No state in between is ever on the host.
  - The transaction is simulated first. One that would remove a package that is not named is refused, and so is one that
    cannot be resolved; nothing has been touched then.
  - In check mode the simulation is the answer. Where a package is in no repository that the package manager knows yet,
    the names are told instead, and RV(simulated) is false.
options:
  manager:
    description: The package manager.
    type: str
    choices: [apt, dnf]
    required: true
  install:
    description: >-
      Packages to install, or to bring to the newest version that is offered; V(name=version) for apt and V(name-version)
      for dnf name one.
    type: list
    elements: str
    default: []
  remove:
    description: Packages to remove. Those that are not installed are none of this.
    type: list
    elements: str
    default: []
  allow_remove:
    description: Packages that may be removed where those to install do not go together with them.
    type: list
    elements: str
    default: []
  hold:
    description: >-
      Regular expressions; installed packages whose name one of them fits as a whole are held back from upgrades (C(apt-mark
      hold), C(dnf versionlock)). O(install) moves them all the same.
    type: list
    elements: str
    default: []
  held:
    description: Whether O(hold) is held, or released.
    type: bool
    default: true
  stream:
    description: The module stream to enable first (V(name:stream), dnf only).
    type: str
    default: ""
author: [Modelyard]
attributes:
  check_mode:
    description: Simulates and changes nothing.
    support: full
  diff_mode:
    description: One line for each package.
    support: full
"""

EXAMPLES = r"""
- name: Change the branch of a driver
  modelyard.fleet.package_transaction:
    manager: apt
    install: [nvidia-headless-580-server-open, nvidia-utils-580-server]
    remove: [nvidia-headless-570-server-open, nvidia-utils-570-server, libnvidia-compute-570-server]
    hold: ["(lib)?nvidia-[a-z0-9-]+-[0-9]+-server(-open)?"]
"""

RETURN = r"""
simulated: {description: Whether the package manager itself told what happens., type: bool, returned: always}
lines:
  description: One line for each package that comes (+), goes (-) or changes (~).
  type: list
  elements: str
  returned: always
held: {description: Packages that were put on hold., type: list, elements: str, returned: always}
released: {description: Packages whose hold was ended., type: list, elements: str, returned: always}
packages:
  description: Versions by name of what is installed afterwards; in check mode, of what would be.
  type: dict
  returned: always
"""

SPEC: dict[str, Any] = {
    "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
    "install": {"type": "list", "elements": "str", "default": []},
    "remove": {"type": "list", "elements": "str", "default": []},
    "allow_remove": {"type": "list", "elements": "str", "default": []},
    "hold": {"type": "list", "elements": "str", "default": []},
    "held": {"type": "bool", "default": True},
    "stream": {"type": "str", "default": ""},
}


def change(manager: Any, wish: dict[str, Any], check: bool) -> dict[str, Any]:
    """Bring packages and holds to the wish; ``apt.TransactionError`` where that cannot be."""
    installed = manager.installed()
    remove = [name for name in wish["remove"] if name in installed]
    steps, simulated = text.Steps(), True
    stream = wish["stream"]
    switched = bool(stream) and manager.stream(stream.partition(":")[0]) != stream
    if wish["install"] or remove:
        if not check:
            manager.refresh()
            if switched:
                manager.enable(stream)
        found = None if check and switched else manager.simulate(wish["install"], remove)
        if found is None and not check:
            raise apt.TransactionError(
                f"Not in any repository of this host: one of {', '.join(wish['install'])}. See that the repository is "
                "there and has this branch."
            )
        simulated = found is not None
        steps = found or text.Steps(
            install=dict.fromkeys(
                (name for name in wish["install"] if name not in installed), "(not known yet)"
            ),
            upgrade={
                name: (installed[name], "(not known yet)") for name in wish["install"] if name in installed
            },
            remove={name: installed[name] for name in remove},
        )
        surprise = text.uninvited(steps, [*remove, *wish["allow_remove"]])
        if surprise:
            raise apt.TransactionError(
                f"Nothing was changed: {', '.join(surprise)} would be removed too, and nobody asked for that. Remove what "
                "depends on the old driver first, or keep the branch."
            )
        if steps and not check:
            manager.commit(wish["install"], remove)
            installed = manager.installed()
        elif steps:
            installed = text.after(installed, steps)
    holds = _holds(manager, wish, installed, check, bool(steps))
    return {
        "changed": bool(steps or holds["held"] or holds["released"]),
        "simulated": simulated,
        "lines": steps.lines(),
        "packages": installed,
        **holds,
    }


def _holds(
    manager: Any, wish: dict[str, Any], installed: dict[str, str], check: bool, moved: bool
) -> dict[str, list[str]]:
    if not wish["hold"]:
        return {"held": [], "released": []}
    fitting = text.to_hold(wish["hold"], installed)
    now = set(manager.held())
    if not wish["held"]:
        going = [name for name in fitting if name in now]
        if going and not check:
            manager.release(going)
        return {"held": [], "released": going}
    # dnf locks versions: what has moved is locked anew
    stale = text.to_hold(wish["hold"], now) if moved and wish["manager"] == "dnf" else []
    coming = [name for name in fitting if name not in now or name in stale]
    if not check:
        if stale:
            manager.release(stale)
        if coming:
            manager.hold(coming)
    return {"held": coming, "released": []}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    environment = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l"}

    def run(command: Any) -> tuple[int, str, str]:
        if module.get_bin_path(command[0]) is None:
            return 127, "", f"{command[0]} is not there"
        done: tuple[int, str, str] = module.run_command(
            list(command), environ_update={**environment, "PATH": os.environ.get("PATH", "")}
        )
        return done

    managers: dict[str, Any] = {"apt": apt.Apt, "dnf": dnf.Dnf}
    try:
        result = change(managers[module.params["manager"]](run), module.params, module.check_mode)
    except apt.TransactionError as failure:
        module.fail_json(msg=str(failure))
    after = "".join(f"{line}\n" for line in [*result["lines"], *(f"hold {name}" for name in result["held"])])
    module.exit_json(
        **result, diff={"before": "", "after": after, "before_header": "packages", "after_header": "packages"}
    )


if __name__ == "__main__":
    main()
