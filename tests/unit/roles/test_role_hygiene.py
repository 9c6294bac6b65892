"""What every role must have, and that its documentation, defaults and specs say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.role_readmes import ROOT, outdated

ROLES = sorted(path for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _options(role: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for spec in _load(role / "meta" / "argument_specs.yml")["argument_specs"].values():
        merged = {**spec["options"], **merged}
    return merged


def test_there_are_roles() -> None:
    assert [role.name for role in ROLES] == [
        "container_runtime",
        "edge",
        "endpoint_registry",
        "gpu_driver",
        "host_hardening",
        "model_server",
        "model_weights",
        "proxy",
    ]


def test_readmes_are_made_from_the_specs() -> None:
    assert outdated(ROOT) == [], "run: python -m tests.tools.role_readmes"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_and_specs_agree(role: Path) -> None:
    options = _options(role)
    defaults = _load(role / "defaults" / "main.yml")
    documented = {name: option["default"] for name, option in options.items() if not option.get("required")}
    assert defaults == documented


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_each_option_is_described_and_has_a_type(role: Path) -> None:
    lacking = [
        name
        for name, option in _options(role).items()
        if not option.get("description") or "type" not in option
    ]
    assert lacking == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_each_role_has_a_scenario_that_checks_first(role: Path) -> None:
    base = _load(ROOT / ".config" / "molecule" / "config.yml")["scenario"]["test_sequence"]
    scenarios = sorted(role.glob("molecule/*/molecule.yml"))
    assert "default" in [path.parent.name for path in scenarios]
    for path in scenarios:
        own = _load(path) or {}
        sequence = own.get("scenario", {}).get("test_sequence", base)
        assert sequence.index("check") < sequence.index("converge") < sequence.index("idempotence")
        assert sequence.index("idempotence") < sequence.index("verify")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_reads_only_its_own_variables(role: Path) -> None:
    others = [other.name for other in ROLES if other != role]
    for path in [*role.glob("tasks/*.yml"), *role.glob("vars/*.yml"), *role.glob("templates/*")]:
        text = path.read_text(encoding="utf-8").replace("modelyard.fleet.endpoint_registry", "")
        for other in others:
            assert f" {other}_" not in text, f"{path} reads a variable of {other}"
