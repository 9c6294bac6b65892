#!/usr/bin/python
"""Ansible module: a key pair that lives for the copies of one run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: weights_key
short_description: A key pair that lives for the copies of one run
description:
  - Makes an SSH key pair in a directory that only the module's user can enter. The private half never leaves the host.
  - Each call makes a new one. It is good for nothing until M(modelyard.fleet.weights_access) lets it in somewhere.
options:
  directory:
    description: Directory of the pair; it is made, and removed with C(absent).
    type: path
    required: true
  state:
    description: Whether there is a pair.
    type: str
    choices: [present, absent]
    default: present
author: [Modelyard]
"""

RETURN = r"""
public_key:
  description: The public half; empty in check mode.
  type: str
  returned: present
key:
  description: Path of the private half.
  type: str
  returned: present
"""


def main() -> None:
    """Run the module. It never reports a change: nothing of it is left when the run ends."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    key = directory / "key"
    if module.check_mode:
        module.exit_json(changed=False, public_key="", key=str(key))
    if directory.is_symlink():
        module.fail_json(msg=f"{directory} is a link: remove it")
    shutil.rmtree(directory, ignore_errors=True)
    if module.params["state"] == "absent":
        module.exit_json(changed=False)
    try:
        directory.mkdir(mode=0o700, parents=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "modelyard-weights", "-f", str(key)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        public = key.with_suffix(".pub").read_text(encoding="utf-8").strip()
    except subprocess.CalledProcessError as error:
        module.fail_json(msg=f"ssh-keygen failed: {error.stderr.strip()}")
    except OSError as error:
        module.fail_json(
            msg=f"a key for copying weights cannot be made: {error}; is openssh-client installed?"
        )
    module.exit_json(changed=False, public_key=public, key=str(key))


if __name__ == "__main__":
    main()
