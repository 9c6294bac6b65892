"""The table that switches defences off, as far as it can be judged without running a scenario."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.tools import chaos_mutations
from tests.tools.chaos_defences import DEFENCES
from tests.tools.chaos_defences.edits import Edit, off
from tests.tools.chaos_mutations import TextNotFoundError, check, switch_off, unguarded

from modelyard.chaos.scenarios import SCENARIOS


def test_every_scenario_has_a_defence_that_can_be_switched_off() -> None:
    assert unguarded() == []


def test_every_edit_finds_its_text() -> None:
    assert check() == []


def test_rows_of_one_scenario_differ() -> None:
    assert len({(row.scenario, row.edits) for row in DEFENCES}) == len(DEFENCES)
    assert len({(row.scenario, row.what) for row in DEFENCES}) == len(DEFENCES)


def test_a_scenario_without_a_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chaos_mutations, "SCENARIOS", (*SCENARIOS, replace(SCENARIOS[0], name="quite-new")))
    assert unguarded() == ["quite-new"]


def test_a_row_that_the_code_has_left_behind_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (off("hangs", "nothing", Edit("app.py", "no such text", "")), off("no-such-one", "nothing"))
    monkeypatch.setattr(chaos_mutations, "DEFENCES", rows)
    assert check() == [
        "hangs: app.py: there is no such file",
        "no-such-one: there is no such scenario",
    ]


@pytest.mark.parametrize("text", ["nothing of the kind", "old and old"])
def test_an_edit_needs_its_text_exactly_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.py").write_text(text)
    with pytest.raises(TextNotFoundError):
        switch_off(tmp_path, off("hangs", "nothing", Edit("one.py", "old", "new")))
    assert (tmp_path / "one.py").read_text() == text


def test_edits_of_one_file_are_all_made(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("first, second")
    switch_off(tmp_path, off("hangs", "both", Edit("one.py", "first", "1"), Edit("one.py", "second", "2")))
    assert (tmp_path / "one.py").read_text() == "1, 2"
