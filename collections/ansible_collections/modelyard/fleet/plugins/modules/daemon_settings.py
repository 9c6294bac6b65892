#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: merge settings into a container engine's daemon.json."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: daemon_settings
short_description: Merge settings into a container engine's daemon.json
description:
  - Merges settings into whatever stands in the file. What others have written stays; what was written here before and
    is no longer wished goes.
  - A file that is not valid JSON is an error, and nothing is changed. Where C(dockerd) is there and can tell
    (C(--validate)), settings that it would not start with are an error too.
  - The file is replaced in one step. What the daemon needs to follow is noted in O(pending) before that, so that a run
    that was cut off is made up for by the next.
  - Users and passwords in URLs are never shown.
author: Modelyard contributors (@modelyard)
options:
  settings:
    description: The settings that are wished. Needed with O(state=merged).
    type: dict
    default: {}
  state:
    description:
      - C(merged) writes the file.
      - C(in_force) notes that the daemon follows it.
      - C(put_back) restores what stood there before the last change that is not in force yet.
    type: str
    choices: [merged, in_force, put_back]
    default: merged
  needs:
    description: What the daemon needs to follow for another reason, such as a changed file of its service.
    type: str
    choices: [none, reload, restart]
    default: none
  path: {description: The file., type: path, default: /etc/docker/daemon.json}
  pending:
    description: Where it is noted what the daemon still needs. Lost at a reboot, after which a daemon follows its file.
    type: path
    default: /run/modelyard-daemon.json
attributes:
  check_mode:
    description: Says what would be done.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
"""

EXAMPLES = r"""
- name: Keep containers alive while the daemon restarts
  modelyard.fleet.daemon_settings:
    settings: {live-restore: true}
  register: __settings
"""

RETURN = r"""
needs:
  description: What the daemon needs to follow, C(none), C(reload) or C(restart).
  returned: when O(state=merged)
  type: str
keys:
  description: The settings that change.
  returned: when O(state=merged)
  type: list
  elements: str
not_survived:
  description: Those of them whose change running containers do not survive.
  returned: when O(state=merged)
  type: list
  elements: str
"""

import base64
import json
import stat
import tempfile
from pathlib import Path
from shutil import which
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import daemon_json
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host.daemon_json import SettingsError
from ansible_collections.modelyard.fleet.plugins.module_utils.files import write_atomically
from ansible_collections.modelyard.fleet.plugins.module_utils.observe.command import run

SPEC: dict[str, Any] = {
    # may hold passwords of proxies; see main() for what becomes of the result
    "settings": {"type": "dict", "default": {}, "no_log": True},
    "state": {"type": "str", "choices": ["merged", "in_force", "put_back"], "default": "merged"},
    "needs": {"type": "str", "choices": ["none", "reload", "restart"], "default": "none"},
    "path": {"type": "path", "default": "/etc/docker/daemon.json"},
    "pending": {"type": "path", "default": "/run/modelyard-daemon.json"},
}
_VALIDATE_S = 30


def merge(path: Path, pending: Path, wished: dict[str, Any], also: str, check: bool) -> dict[str, Any]:
    """Write the file where it differs from what is wished; the module's result. Raises ``SettingsError``.

    ``also`` is what the daemon needs for another reason.
    """
    path = path.resolve()  # a link stays one
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = daemon_json.parse(text, str(path))
    record = path.with_name(f".{path.name}.modelyard")
    wanted = daemon_json.merged(found, wished, _read(record))
    noted = _read(pending)
    keys = daemon_json.changed_keys(found, wanted)
    # what is pending is measured from what is in force, not from what an earlier run has written
    before = _text(noted) if noted else text
    in_force = daemon_json.parse(before, str(path))
    needs = daemon_json.more(daemon_json.needs(found, wanted), also)
    needs = daemon_json.more(needs, str(noted.get("needs", daemon_json.NONE)))
    after = daemon_json.render(wanted) if keys else text
    if keys:
        _let_dockerd_judge(after)
    if not check:
        if needs != noted.get("needs", daemon_json.NONE):
            note = {"needs": needs, "before": base64.b64encode(before.encode()).decode()}
            write_atomically(pending, json.dumps(note).encode(), 0o600)
        if keys:
            write_atomically(path, after.encode(), _mode(path, after), *_owner(path))
        if _read(record) != wished and path.parent.exists():
            write_atomically(record, json.dumps(wished).encode(), 0o600)
    return {
        "changed": bool(keys) or needs != daemon_json.NONE,
        "needs": needs,
        "keys": keys,
        "not_survived": daemon_json.not_survived(in_force, wanted),
        "diff": {
            "before": daemon_json.masked(text),
            "after": daemon_json.masked(after),
            "before_header": str(path),
            "after_header": str(path),
        },
    }


def put_back(path: Path, pending: Path, check: bool) -> bool:
    """Restore what is noted as having stood there; whether there was anything to restore."""
    noted = _read(pending)
    if not noted:
        return False
    if not check:
        path = path.resolve()
        text = _text(noted)
        if text:
            write_atomically(path, text.encode(), _mode(path, text), *_owner(path))
        else:
            path.unlink(missing_ok=True)
        path.with_name(f".{path.name}.modelyard").unlink(missing_ok=True)
        pending.unlink(missing_ok=True)
    return True


def _read(path: Path) -> dict[str, Any]:
    """The object in one of our own notes; empty where there is none, or none that can be read."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _text(noted: dict[str, Any]) -> str:
    return base64.b64decode(str(noted.get("before", ""))).decode()


def _mode(path: Path, text: str) -> int:
    if daemon_json.holds_credentials(text):
        return 0o600
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644


def _owner(path: Path) -> tuple[int, int]:
    there = path.stat() if path.exists() else None
    return (there.st_uid, there.st_gid) if there else (0, 0)


def _let_dockerd_judge(text: str) -> None:
    """Raise ``SettingsError`` where the daemon would not start; older ones cannot tell (before Docker 23)."""
    daemon = which("dockerd")
    if daemon is None:
        return
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as draft:
        draft.write(text)
        draft.flush()
        code, out, err = run([daemon, "--validate", f"--config-file={draft.name}"], _VALIDATE_S)
        said = (err or out).replace(draft.name, "daemon.json")
    if code not in (0, None) and "unknown flag" not in said:
        raise SettingsError(
            f"The daemon would not start with these settings, so they were not written: {daemon_json.masked(said)}"
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    path, pending = Path(params["path"]), Path(params["pending"])
    # Each string of the settings counts as secret so far, and would be cut out of the result wherever it occurs.
    # What is secret in them, users and passwords in URLs, is masked in all that is shown.
    module.no_log_values.clear()
    shown = {"module_args": {name: value for name, value in params.items() if name != "settings"}}
    try:
        if params["state"] == "merged":
            result = merge(path, pending, params["settings"], params["needs"], module.check_mode)
        elif params["state"] == "put_back":
            result = {"changed": put_back(path, pending, module.check_mode)}
        else:
            if not module.check_mode:
                pending.unlink(missing_ok=True)
            result = {"changed": False}
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        module.fail_json(msg=daemon_json.masked(str(error)), invocation=shown)
    module.exit_json(**result, invocation=shown)


if __name__ == "__main__":
    main()
