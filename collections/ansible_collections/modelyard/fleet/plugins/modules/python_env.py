#!/usr/bin/python
"""Ansible module: a virtual environment that holds exactly what a hashed lock says."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.files import write_atomically

DOCUMENTATION = r"""
module: python_env
short_description: A virtual environment that holds exactly what a hashed lock says
description:
  - Makes a virtual environment and installs a lock with hashes, and wheels of our own, into it.
  - Does nothing when lock, wheels and Python are those of the last complete installation.
options:
  path: {description: Directory of the environment., type: path, required: true}
  requirements: {description: Lock with hashes on this host., type: path, required: true}
  wheels:
    description:
      - Wheels on this host, installed after the lock and without their dependencies.
      - Of several builds of one version the one is taken that fits this host's Python best.
    type: list
    elements: path
    default: []
  origin:
    description: >-
      What O(wheels) were made from. Where it is given, wheels of the same origin count as the same, whoever built them (two
      C compilers do not write the same bytes), and have to be there only when something is installed.
    type: str
  wheelhouse:
    description: Directory on this host with wheels; the package index is not used then.
    type: path
  python: {description: Python that makes the environment; default the one that runs the module., type: path}
  state: {description: Whether it should be there., type: str, choices: [present, absent], default: present}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Make an environment
  modelyard.fleet.python_env:
    path: /opt/modelyard/venv
    requirements: /opt/modelyard/serve.txt
"""

RETURN = r"""
python: {description: The environment's Python., type: str, returned: always}
stale: {description: Whether it had to be made or changed., type: bool, returned: when present}
reason: {description: Why it was made or changed., type: str, returned: always}
makes:
  description: >-
    Whether this Python can make environments; that of Debian and Ubuntu can once python3-venv is there. Looked at only
    where O(path) is to be made.
  type: bool
  returned: when present
"""

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "requirements": {"type": "path", "required": True},
    "wheels": {"type": "list", "elements": "path", "default": []},
    "origin": {"type": "str"},
    "wheelhouse": {"type": "path"},
    "python": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
RECORD = ".modelyard-env.json"


class EnvError(Exception):
    """Why the environment cannot be made, and what to do."""


def _run(command: list[str], what: str) -> str:
    """Standard output of a command. Raises ``EnvError`` with the end of what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise EnvError(f"{what}: {error}") from error
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        hint = ""
        if "ensurepip" in said:
            hint = " Install the package python3-venv (Debian, Ubuntu) first."
        raise EnvError(f"{what} failed.{hint}\n{said}")
    return done.stdout.strip()


def _fingerprint(python: str, files: list[Path]) -> dict[str, str]:
    """What the environment is made from: the Python's version and each file's SHA-256."""
    version = _run([python, "-c", "import sys; print(sys.version)"], f"{python} --version")
    prints = {"python": version}
    for path in files:
        try:
            prints[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise EnvError(f"{path} cannot be read: {error.strerror}") from error
    return prints


def _makes_environments(python: str) -> bool:
    """Whether a Python has what an environment is made with."""
    try:
        done = subprocess.run(
            [python, "-c", "import ensurepip, venv"],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return done.returncode == 0


def _why(recorded: dict[str, str] | None, wanted: dict[str, str]) -> str | None:
    """Why the environment must be (re)made; None when it is as wanted."""
    if recorded is None:
        return "there is no complete environment"
    differing = sorted(name for name in {*recorded, *wanted} if recorded.get(name) != wanted.get(name))
    return f"changed: {', '.join(differing)}" if differing else None


def _read_record(path: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _by_version(wheels: list[str]) -> dict[str, list[str]]:
    """Wheels by what pip calls their version: ``name==version``, as the first two parts of their names say."""
    found: dict[str, list[str]] = {}
    for wheel in wheels:
        name, version, *_ = Path(wheel).name.split("-")
        found.setdefault(f"{name}=={version}", []).append(wheel)
    return found


def _install(
    params: dict[str, Any], python: str, wanted: dict[str, str], recorded: dict[str, str] | None
) -> None:
    place = Path(params["path"])
    record = place / RECORD
    # from here on until the end it is not complete
    record.unlink(missing_ok=True)
    if recorded is None or recorded.get("python") != wanted["python"]:
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        _run([python, "-m", "venv", str(place)], f"making the environment {place}")
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-input"]
    house = params["wheelhouse"]
    source = ["--no-index", "--find-links", house] if house else []
    _run([*pip, *source, "--require-hashes", "-r", params["requirements"]], "installing the lock")
    for name, builds in _by_version(params["wheels"]).items():
        links = [part for build in builds for part in ("--find-links", build)]
        _run([*pip, "--no-index", *links, "--no-deps", "--force-reinstall", name], f"installing {name}")
    write_atomically(record, json.dumps(wanted, indent=1, sort_keys=True).encode(), 0o644)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    place = Path(params["path"])
    if params["state"] == "absent":
        there = place.exists()
        if there and not module.check_mode:
            shutil.rmtree(place)
        module.exit_json(changed=there, python=str(place / "bin" / "python"), reason="is no longer wanted")
    python = params["python"] or getattr(sys, "_base_executable", sys.executable)
    files = [Path(params["requirements"])]
    if params["origin"] is None:
        files += map(Path, params["wheels"])
    try:
        missing = [str(path) for path in files if not path.exists()]
        if missing and module.check_mode:
            # earlier tasks of this check would have brought them
            reason: str | None = f"would be made once {', '.join(missing)} is there"
        else:
            wanted = _fingerprint(python, files)
            if params["origin"] is not None:
                wanted["wheels"] = params["origin"]
            recorded = _read_record(place / RECORD)
            reason = _why(recorded, wanted)
            if reason is not None and not module.check_mode:
                _install(params, python, wanted, recorded)
    except EnvError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=reason is not None,
        stale=reason is not None,
        makes=reason is None or (place / "bin").is_dir() or _makes_environments(python),
        python=str(place / "bin" / "python"),
        reason=reason or "is as wanted",
    )


if __name__ == "__main__":
    main()
