"""That what the role's files say twice is the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.unit.gpu_driver.hosts import PLATFORMS, ROLE

VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
SPEC: dict[str, Any] = yaml.safe_load((ROLE / "meta" / "argument_specs.yml").read_text(encoding="utf-8"))
OPTIONS = SPEC["argument_specs"]["main"]["options"]


@pytest.mark.parametrize("name", ["nvidia", "amd", "mig", "reboot", "look"])
def test_defaults_of_options_are_those_that_are_documented(name: str) -> None:
    documented = {key: option["default"] for key, option in OPTIONS[f"gpu_driver_{name}"]["options"].items()}
    assert VARS[f"__gpu_driver_{name}_defaults"] == documented


def test_the_platforms_are_the_files() -> None:
    assert VARS["__gpu_driver_platforms"] == sorted(PLATFORMS)
    assert all(f"`{name}`" in OPTIONS["gpu_driver_platform"]["description"] for name in PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_route_of_a_platform_is_complete(platform: str) -> None:
    data = PLATFORMS[platform]
    assert set(data) == {"title", "manager", "nvidia", "amd"}
    for route in (data["nvidia"]["distribution"], data["nvidia"]["cuda"]):
        for rule in route["family"]:
            re.compile(rule["name"])
            re.compile(rule.get("version", ""))
        if "absent" not in route:
            assert route["packages"][0].get("first", 0) == 0
            assert "last" not in route["packages"][-1]
            for one, other in zip(route["packages"], route["packages"][1:], strict=False):
                assert other["first"] == one["last"] + 1
            for names in route["packages"]:
                assert set(names["kernel"]) == set(route["kernels"])
                assert names["userspace"]
