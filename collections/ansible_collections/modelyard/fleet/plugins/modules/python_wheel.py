#!/usr/bin/python
"""Ansible module: build a project's wheel, once for each state of its sources."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: python_wheel
short_description: Build a project's wheel, once for each state of its sources
description:
  - Builds without an index and without build isolation, so that it works offline.
  - The wheel lies in a directory named by the hash of the sources; it is built only when that has none.
options:
  project: {description: Directory with pyproject.toml., type: path, required: true}
  sources:
    description: Files and directories, relative to the project, that the wheel is made from.
    type: list
    elements: str
    required: true
  destination: {description: Directory that keeps the built wheels., type: path, required: true}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Build the wheel
  modelyard.fleet.python_wheel:
    project: /srv/modelyard
    sources: [pyproject.toml, proxy/modelyard]
    destination: /srv/modelyard/.cache/wheels
"""

RETURN = r"""
wheel: {description: The wheel's path., type: str, returned: always}
digest: {description: Hash of the sources., type: str, returned: always}
"""

SPEC: dict[str, Any] = {
    "project": {"type": "path", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
    "destination": {"type": "path", "required": True},
}


def digest_of(project: Path, sources: list[str]) -> str:
    """One hash over the names and contents of all source files, caches left out."""
    digest = hashlib.sha256()
    for source in sources:
        place = project / source
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(project).as_posix()
                digest.update(f"{name}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build(project: Path, place: Path) -> str:
    """Build into a new directory and move it into place whole. Returns an error text, empty when it worked."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as name:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        command += ["--disable-pip-version-check", "--no-index", "--wheel-dir", name, str(project)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            return "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        place.mkdir(exist_ok=True)
        for wheel in Path(name).glob("*.whl"):
            shutil.move(str(wheel), place / wheel.name)
    return ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    project = Path(module.params["project"])
    try:
        digest = digest_of(project, module.params["sources"])
        place = Path(module.params["destination"]) / digest
        found = sorted(place.glob("*.whl"))
        if found or module.check_mode:
            wheel = str(found[0]) if found else str(place)
            module.exit_json(changed=not found, wheel=wheel, digest=digest)
        said = build(project, place)
    except OSError as error:
        module.fail_json(msg=f"the wheel of {project} cannot be built: {error}")
    built = sorted(place.glob("*.whl"))
    if said or not built:
        module.fail_json(
            msg=f"the wheel of {project} cannot be built with {sys.executable} (it needs hatchling and editables):\n{said}"
        )
    module.exit_json(changed=True, wheel=str(built[0]), digest=digest)


if __name__ == "__main__":
    main()
