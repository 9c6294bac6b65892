"""Broken inventories give every problem at once, each at its place; good ones give none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.inventory import Problem, check_files

from ..ansible_inventory import problems

ROOT = Path(__file__).parents[3]
DATA = yaml.safe_load(Path(__file__).with_name("broken.yml").read_text(encoding="utf-8"))
SHORT = {"models.yml": "group_vars/all/models.yml", "fleet.yml": "group_vars/all/fleet.yml"}
# What only Ansible can know: hosts, and values that it renders.
RESOLVED = {
    "unknown-host",
    "no-host",
    "not-an-engine-host",
    "no-image",
    "engine-runtime",
    "accelerator-mismatch",
    "not-enough-gpus",
    "not-enough-ports",
    "ports-overlap",
    "address-is-name",
    "template",
    "no-models",
    "pinned-elsewhere",
    "pinned-no-gpu",
}


def write(directory: Path, case: dict[str, Any]) -> Path:
    files = dict(DATA["base"])
    for name, text in case.items():
        if name.endswith(".yml"):
            files[SHORT.get(name, name)] = text
    for name, text in files.items():
        target = directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return directory


def matches(problem: Problem, expected: dict[str, Any], directory: Path) -> bool:
    file = expected.get("file", "models.yml")
    path = str(directory / SHORT.get(file, file)) if file else None
    return (
        problem.code == expected["code"]
        and expected["says"] in f"{problem.message} {problem.hint}"
        and problem.field == expected["field"]
        and problem.model == expected.get("model")
        and ("host" not in expected or problem.host == expected["host"])
        and ("line" not in expected or (problem.file, problem.line) == (path, expected["line"]))
    )


def assert_exactly(found: list[Problem], expected: list[dict[str, Any]], directory: Path) -> None:
    listing = "\n".join(f"[{problem.code}] {problem}" for problem in found)
    for item in expected:
        assert any(matches(problem, item, directory) for problem in found), f"missing {item} in\n{listing}"
    assert len(found) == len(expected), listing


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_broken_inventory_names_each_problem(case: dict[str, Any], tmp_path: Path) -> None:
    directory = write(tmp_path, case)
    assert_exactly(problems(directory), case["expect"], directory)


@pytest.mark.parametrize("case", DATA["cases"], ids=lambda case: case["name"].replace(" ", "-"))
def test_files_alone_say_what_needs_no_host(case: dict[str, Any], tmp_path: Path) -> None:
    directory = write(tmp_path, case)
    local = [item for item in case["expect"] if item["code"] not in RESOLVED]
    found = [problem for problem in check_files(directory) if problem.code not in RESOLVED]
    assert_exactly(found, local, directory)


def test_there_are_thirty() -> None:
    assert len(DATA["cases"]) >= 30


def test_base_of_the_broken_ones_is_good(tmp_path: Path) -> None:
    assert problems(write(tmp_path, {})) == []


@pytest.mark.parametrize("name", ["local", "example"])
def test_shipped_inventories_are_good(name: str) -> None:
    assert problems(ROOT / "inventories" / name) == []
    assert check_files(ROOT / "inventories" / name) == []


def test_text_names_file_line_model_and_field(tmp_path: Path) -> None:
    case = next(item for item in DATA["cases"] if item["name"] == "a wrong type")
    (problem,) = check_files(write(tmp_path, case), shown_from=None)
    assert str(problem).startswith(
        f"{tmp_path}/group_vars/all/models.yml:5: model small: placement.replicas: must"
    )
