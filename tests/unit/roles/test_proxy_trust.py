"""Whom the proxy believes: the role's own list and the operator's, in one order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.tools.role_readmes import ROOT

ROLE = ROOT / "roles" / "proxy"


def variables(**wish: Any) -> dict[str, str]:
    loader = DataLoader()
    own: dict[str, Any] = {"role_path": str(ROLE)}
    for path in (ROLE / "defaults" / "main.yml", ROLE / "vars" / "main.yml"):
        own |= loader.load_from_file(str(path), trusted_as_template=True)
    templar = Templar(loader=loader, variables=own | wish)
    return dict(json.loads(json.dumps(templar.template(trust_as_template("{{ __proxy_variables }}")))))


def test_nobody_is_believed_and_nothing_is_waited_for_unasked() -> None:
    assert set(variables()) == {"MODELYARD_REGISTRY", "HOST", "PORT", "ALLOWED_ORIGINS"}


@pytest.mark.parametrize("order", [["10.0.0.2", "10.0.0.1"], ["10.0.0.1", "10.0.0.2"]])
def test_both_lists_hold_in_the_same_order(order: list[str]) -> None:
    found = variables(
        proxy_trusted_networks=order,
        proxy_drain_delay_s=3,
        proxy_environment={"MODELYARD_TRUSTED_PROXIES": "192.0.2.0/24, 10.0.0.1"},
    )
    assert found["MODELYARD_TRUSTED_PROXIES"] == "10.0.0.1,10.0.0.2,192.0.2.0/24"
    assert found["MODELYARD_DRAIN_DELAY_S"] == "3"
