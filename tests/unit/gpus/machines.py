"""Machines that the tests look at: stand-in tools, run for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.host import Host
from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.observe import observe

from modelyard.catalog import load_gpus
from tests.tools import standins

COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
CATALOG = {name: vendor.data for name, vendor in load_gpus().items()}
MODULE = "ansible_collections.modelyard.fleet.plugins.modules.gpu_facts"


def machine(root: Path, name: str, **part: Any) -> standins.Machine:
    """A scenario; ``part`` changes what it says of its vendor, ``gpu0`` and so on of one GPU, ``top`` the rest."""
    scenario = standins.load(name)
    vendor = scenario.get("nvidia") or scenario.get("amd") or {}
    scenario.update(part.pop("top", {}))
    for key, value in part.items():
        if key.startswith("gpu") and key[3:].isdigit():
            vendor["gpus"][int(key[3:])].update(value)
        else:
            vendor[key] = value
    return standins.Machine(root / "machine", scenario)


def look(there: standins.Machine, timeout: float = 20, **expect: Any) -> dict[str, Any]:
    """What the module's code sees, in this process."""
    params = there.params()
    host = Host(timeout, params["proc"], params["sys"], params["path"])
    return observe(host, CATALOG, expect)


def run_module(there: standins.Machine, check: bool = False, **params: Any) -> dict[str, Any]:
    """The module as Ansible runs it, in a process of its own; nothing but its result may be printed."""
    given = {**there.params(), "catalog": CATALOG, **params, "_ansible_check_mode": check}
    done = subprocess.run(
        [sys.executable, "-m", MODULE],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": given}),
        capture_output=True,
        text=True,
        check=False,
        cwd=COLLECTIONS,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stderr == ""
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def codes(facts: dict[str, Any], *without: str) -> list[str]:
    """The findings' codes, in their order."""
    return [one["code"] for one in facts["findings"] if one["severity"] not in without]


def text(facts: dict[str, Any], code: str) -> str:
    """The sentence of the one finding of this code."""
    (found,) = [one["text"] for one in facts["findings"] if one["code"] == code]
    return str(found)
