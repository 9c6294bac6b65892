#!/usr/bin/python
"""Ansible module: build a project's wheels, once for each state of its sources."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: python_wheel
short_description: Build a project's wheels, once for each state of its sources
description:
  - Builds without an index and without build isolation, so that it works offline.
  - A wheel lies in a directory named by the hash of the sources; it is built only when that has none.
  - Besides the wheel that runs everywhere, one can be had in which part of the project is machine code, for the Python and
    the C library of this machine. It takes half a minute.
options:
  project: {description: Directory with pyproject.toml., type: path, required: true}
  sources:
    description: Files and directories, relative to the project, that the wheel is made from.
    type: list
    elements: str
    required: true
  destination: {description: Directory that keeps the built wheels., type: path, required: true}
  compiled:
    description:
      - Whether to build the wheel with machine code as well.
      - V(auto) does where that is possible here, V(always) fails where it is not.
    type: str
    choices: [auto, always, never]
    default: never
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
wheel: {description: Path of the wheel that runs everywhere., type: str, returned: always}
wheels: {description: Paths of all wheels., type: list, elements: str, returned: always}
digest: {description: Hash of the sources., type: str, returned: always}
uncompiled:
  description: Why there is none with machine code; empty where there is one, or none was asked for.
  type: str
  returned: always
"""

SPEC: dict[str, Any] = {
    "project": {"type": "path", "required": True},
    "sources": {"type": "list", "elements": "str", "required": True},
    "destination": {"type": "path", "required": True},
    "compiled": {"type": "str", "choices": ["auto", "always", "never"], "default": "never"},
}
# what tells hatchling to run the project's own build hook
COMPILE = {"HATCH_BUILD_HOOK_ENABLE_CUSTOM": "true"}


class BuildError(Exception):
    """Why a wheel cannot be built."""


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


def cannot_compile() -> str:
    """What this machine lacks to compile a wheel, and what to do; empty where it lacks nothing."""
    if not sys.platform.startswith("linux"):
        return f"what is compiled on {sys.platform} does not run on hosts"
    if any(importlib.util.find_spec(name) is None for name in ("mypyc", "setuptools")):
        return f"mypy or setuptools is missing beside {sys.executable}"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler}): install gcc"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return f"the C headers of {sys.executable} are missing: install python3-dev"
    return ""


def build(project: Path, place: Path, more: dict[str, str]) -> Path:
    """The wheel in ``place``, built there whole if it is not; ``more`` is added to the builder's environment."""
    found = sorted(place.glob("*.whl"))
    if found:
        return found[0]
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as name:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        command += ["--disable-pip-version-check", "--no-index", "--wheel-dir", name, str(project)]
        done = subprocess.run(
            command,
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        built = sorted(Path(name).glob("*.whl"))
        if done.returncode != 0 or not built:
            raise BuildError("\n".join((done.stdout + done.stderr).strip().splitlines()[-15:]))
        place.mkdir(exist_ok=True)
        # within one file system: it is there whole or not at all
        return Path(shutil.move(built[0], place / built[0].name))


def build_compiled(project: Path, place: Path) -> Path:
    """As ``build``, with machine code for this Python."""
    return build(project, place.with_name(f"{place.name}-{sysconfig.get_config_var('SOABI')}"), COMPILE)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    project, wish = Path(module.params["project"]), module.params["compiled"]
    why = "" if wish == "never" else cannot_compile()
    if why and wish == "always":
        module.fail_json(msg=f"the wheel of {project} cannot be compiled: {why}; or let `compiled` be auto")
    try:
        digest = digest_of(project, module.params["sources"])
        place = Path(module.params["destination"]) / digest
        there = sorted(place.parent.glob(f"{digest}*/*.whl"))
        if module.check_mode:
            plain = next((str(path) for path in there if path.parent == place), None)
            wheel = plain or str(place)
            module.exit_json(
                changed=plain is None, wheel=wheel, wheels=[wheel], digest=digest, uncompiled=why
            )
        wheels = [build(project, place, {})]
        if wish != "never" and not why:
            try:
                wheels.append(build_compiled(project, place))
            except BuildError as error:
                if wish == "always":
                    raise
                why = str(error)
                module.warn(f"the wheel of {project} cannot be compiled, and runs interpreted: {why}")
    except OSError as error:
        module.fail_json(msg=f"the wheel of {project} cannot be built: {error}")
    except BuildError as error:
        module.fail_json(
            msg=f"the wheel of {project} cannot be built with {sys.executable} (it needs hatchling and editables):\n{error}"
        )
    module.exit_json(
        changed=not all(path in there for path in wheels),
        wheel=str(wheels[0]),
        wheels=[str(path) for path in wheels],
        digest=digest,
        uncompiled=why,
    )


if __name__ == "__main__":
    main()
