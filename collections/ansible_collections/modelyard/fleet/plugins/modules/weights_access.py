#!/usr/bin/python
"""Ansible module: let keys of other hosts read directories of weights for a while, and nothing else."""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.files import write_atomically
from ansible_collections.modelyard.fleet.plugins.module_utils.peer import program

DOCUMENTATION = r"""
module: weights_access
short_description: Let keys of other hosts read directories of weights for a while, and nothing else
description:
  - Adds lines to the C(authorized_keys) of the user that the module runs as. Each key may run one program, which gives
    the files that the manifests of the named directories list; no shell, no forwarding, no other file.
  - A line is worth nothing after O(valid_s), also when no run takes it away again. Lines that others wrote are never
    touched.
options:
  keys:
    description: Public keys.
    type: list
    elements: str
    default: []
  directories:
    description: Directories of weights, in the order in which clients count them.
    type: list
    elements: path
    default: []
  rate:
    description: Bytes per second for each connection; 0 is no limit.
    type: float
    default: 0
  valid_s:
    description: Seconds after which the keys are refused.
    type: int
    default: 86400
  address:
    description: Address at which clients reach this host; its host keys are returned with it.
    type: str
  port:
    description: Port of the SSH server there.
    type: int
    default: 22
  tag:
    description: Letters and digits that tell the lines of one fleet from those of another.
    type: str
    required: true
  state:
    description: C(absent) takes away every line that this module has written with O(tag).
    type: str
    choices: [present, absent]
    default: present
author: [Modelyard]
"""

RETURN = r"""
user:
  description: The user to log in as.
  type: str
  returned: present
host_keys:
  description: Lines for a C(known_hosts) file.
  type: list
  returned: present
"""

MARK = "modelyard-weights"
SCRIPT = "modelyard-send-weights.py"
_KEY = re.compile(r"(ssh-ed25519) ([A-Za-z0-9+/=]+)( [^\n]*)?")


def line(key: str, script: Path, params: dict[str, Any], now: float) -> str:
    """The line of ``authorized_keys`` for one key, without its comment. Raises ``ValueError``."""
    match = _KEY.fullmatch(key.strip())
    if match is None:
        raise ValueError(f"{key[:40]!r} is no ed25519 public key")
    words = [sys.executable, str(script), str(params["rate"]), *params["directories"]]
    command = shlex.join(words).replace("\\", "\\\\").replace('"', '\\"')
    # in the server's own time zone, as older servers want it
    until = time.strftime("%Y%m%d%H%M%S", time.localtime(now + params["valid_s"]))
    return f'restrict,expiry-time="{until}",command="{command}" {match[1]} {match[2]}'


def host_keys(address: str, port: int) -> list[str]:
    """The host's own public keys as lines of ``known_hosts``: from their files, else asked of its own SSH server."""
    name = address if port == 22 else f"[{address}]:{port}"
    found = []
    for path in sorted(Path("/etc/ssh").glob("ssh_host_*_key.pub")):
        words = path.read_text(encoding="utf-8").split()
        found.append(f"{name} {words[0]} {words[1]}")
    if found:
        return found
    # to an address of this host: what is asked never leaves it
    done = subprocess.run(
        ["ssh-keyscan", "-T", "5", "-p", str(port), "--", address],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return [one for one in done.stdout.splitlines() if one and not one.startswith("#")]


def change(params: dict[str, Any], home: Path) -> None:
    """Write the lines, or take them away. Raises ``OSError`` and ``ValueError``."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    path, script = folder / "authorized_keys", folder / SCRIPT
    with (folder / f".{MARK}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        mark = f" {MARK}-{params['tag']}"
        new = "".join(one for one in old.splitlines(keepends=True) if not one.rstrip().endswith(mark))
        if params["state"] == "present":
            write_atomically(script, program().encode(), 0o600)
            lines = [line(key, script, params, time.time()) for key in params["keys"]]
            new += "\n" if new and not new.endswith("\n") else ""
            new += "".join(f"{one}{mark}\n" for one in lines)
        if new != old:
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
            write_atomically(path.resolve(), new.encode(), mode)  # a link stays one
        if params["state"] == "absent" and f" {MARK}-" not in new:
            script.unlink(missing_ok=True)
    (folder / f".{MARK}.lock").unlink(missing_ok=True)


def main() -> None:
    """Run the module. It never reports a change: nothing of it is left when the run ends."""
    module = AnsibleModule(
        argument_spec={
            "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "directories": {"type": "list", "elements": "path", "default": []},
            "tag": {"type": "str", "required": True},
            "rate": {"type": "float", "default": 0},
            "valid_s": {"type": "int", "default": 86400},
            "address": {"type": "str"},
            "port": {"type": "int", "default": 22},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    params = module.params
    if module.check_mode:
        module.exit_json(changed=False, user="", host_keys=[])
    # not what LOGNAME says: the one whose file is written
    account = pwd.getpwuid(os.geteuid())
    try:
        change(params, Path(account.pw_dir))
        if params["state"] == "absent":
            module.exit_json(changed=False)
        keys = host_keys(params["address"], params["port"])
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"other hosts cannot be let in to copy weights: {error}")
    if not keys:
        module.warn(
            f"the SSH server at {params['address']} port {params['port']}, where other hosts are to copy weights "
            "from, does not answer this host itself: set fleet_weights_address, or fleet_weights_site: '' to let each "
            "host fetch for itself"
        )
    module.exit_json(changed=False, user=account.pw_name, host_keys=keys)


if __name__ == "__main__":
    main()
