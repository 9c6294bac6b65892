"""Which tests one worker runs, when several run side by side."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import APART, TOGETHER, group

ROOT = Path(__file__).parents[2]


def test_every_place_that_is_named_is_there() -> None:
    assert [place for place in (*TOGETHER, *APART) if not (ROOT / place).exists()] == []


def test_files_stay_whole_and_those_that_share_something_stay_together() -> None:
    assert group("tests/unit/test_a.py::test_x") == group("tests/unit/test_a.py::test_y[1::2]")
    assert group("tests/unit/test_a.py::test_x") != group("tests/unit/test_b.py::test_x")
    rolling = {group(f"tests/e2e/rolling/test_{name}.py::test_x") for name in ("roll", "crashes")}
    assert len(rolling) == 1
    assert group("tests/e2e/test_query_of_death.py::test_x") == group("tests/hosts/test_parts.py::test_y")
    scenarios = {group(f"tests/hosts/test_molecule.py::test_scenario[{name}]") for name in ("a", "b")}
    assert len(scenarios) == 2
