"""What the modules' documentation says of their options is what they take; ansible-doc reads it, fragments included."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tools.role_readmes import ROOT

MODULES = ROOT / "collections" / "ansible_collections" / "modelyard" / "fleet" / "plugins" / "modules"
SPECS = {
    path.stem: spec
    for path in sorted(MODULES.glob("*.py"))
    if (
        spec := getattr(
            importlib.import_module(f"ansible_collections.modelyard.fleet.plugins.modules.{path.stem}"),
            "SPEC",
            None,
        )
    )
}
_SAME = ("type", "elements", "choices", "required", "default")


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    names = [f"modelyard.fleet.{name}" for name in SPECS]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-doc")), "--type", "module", "--json", *names],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return {name.rpartition(".")[2]: one["doc"] for name, one in found.items()}


@pytest.mark.parametrize("name", SPECS)
def test_options_are_documented_as_they_are_taken(name: str, documented: dict[str, Any]) -> None:
    said = {option: _of(one) for option, one in documented[name]["options"].items()}
    assert said == {option: _of(one) for option, one in SPECS[name].items()}
    assert all(one.get("description") for one in documented[name]["options"].values())


def test_modules_that_look_at_a_host_share_what_they_say(documented: dict[str, Any]) -> None:
    shared = ("timeout", "path", "proc")
    (one, other) = (documented[name]["options"] for name in ("gpu_facts", "host_health"))
    assert [one[option] for option in shared] == [other[option] for option in shared]


def _of(option: dict[str, Any]) -> dict[str, Any]:
    """What counts of an option, without what means the same as leaving it out."""
    kept = {key: option[key] for key in _SAME if option.get(key) not in (None, False)}
    # a default that is empty is written down by some
    return {key: value for key, value in kept.items() if key != "default" or value not in ("", [], {})}
