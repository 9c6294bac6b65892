"""`modelyard history`: finding the records, the table, differences, and everything that may be missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.unit.releases.made import image, release

from modelyard.cli.main import main
from modelyard.releases import FAILED, append, write_holds
from modelyard.releases.holds import Hold

HOLD = Hold(1, "hash", {}, "2026-05-04T12:00:00+00:00", "ann@here")


def history(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["history", *words])


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    (tmp_path / "group_vars" / "all").mkdir(parents=True)
    state = tmp_path / ".modelyard"
    append(state, release(1))
    images = {"h1": image("other:2", digest="other@sha256:abc")}
    append(
        state,
        release(2, args={"max_model_len": 8192, "eager": True}, env={"TOKEN": "secret-2"}, images=images),
    )
    append(state, release(3, args={}, outcome=FAILED, note="h1: the golden prompt failed"))
    append(state, release(4, rollback_of=1))
    write_holds(state, {"m": HOLD})
    return tmp_path


def test_the_table(inventory: Path) -> None:
    told = history("-i", str(inventory))
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    (first,) = [at for at, line in enumerate(lines) if "│ 1 held" in line]
    (last,) = [at for at, line in enumerate(lines) if "│ 4 current" in line]
    assert last < first, "newest first"
    for part in (
        "back to release 1", "max_model_len 4096 -> 8192", "eager none -> true", "env.TOKEN changed", "failed",
        "image registry.example/vllm:1 -> other@sha256:abc", "h1: the golden prompt failed", "cccccccccc+", "ann@here",
        "2026-05-04 12:00:02", "the first one recorded", "2 on 1",
    ):  # fmt: skip
        assert part in told.output
    assert "secret" not in told.output


def test_as_json(inventory: Path) -> None:
    data = json.loads(history("m", "-i", str(inventory), "--json").output)
    assert data["state_dir"] == str(inventory / ".modelyard")
    (model,) = data["models"]
    assert (model["model"], model["current"], model["held"]) == ("m", 4, 1)
    assert [one["number"] for one in model["releases"]] == [4, 3, 2, 1]
    # against the one that was applied before it, not against the attempt in between
    assert "max_model_len 8192 -> 4096" in model["releases"][0]["changed"]


def test_two_releases_compared(inventory: Path) -> None:
    told = history("m", "-i", str(inventory), "--diff", "1", "2")
    assert told.exit_code == 0
    assert "max_model_len" in told.output
    rows = json.loads(history("m", "-i", str(inventory), "--diff", "2", "1", "--json").output)["differences"]
    assert {"field": "max_model_len", "before": "8192", "after": "4096"} in rows
    assert "are alike" in history("m", "-i", str(inventory), "--diff", "1", "4").output
    wrong = history("m", "-i", str(inventory), "--diff", "1", "9")
    assert wrong.exit_code == 1
    assert "There is no release 9 of m. Recorded: 1, 2, 3, 4." in wrong.output
    assert history("-i", str(inventory), "--diff", "1", "2").exit_code == 2


def test_nothing_recorded_yet(tmp_path: Path) -> None:
    told = history("-i", str(tmp_path))
    assert told.exit_code == 0
    assert "No release is recorded in" in told.output
    assert json.loads(history("-i", str(tmp_path), "--json").output)["models"] == []


def test_another_model_is_meant(inventory: Path) -> None:
    told = history("n", "-i", str(inventory))
    assert told.exit_code == 1
    assert "No release of n is recorded" in told.output


def test_a_broken_file_is_told(inventory: Path) -> None:
    (inventory / ".modelyard" / "releases" / "m.json").write_text("{", encoding="utf-8")
    told = history("-i", str(inventory))
    assert told.exit_code == 1
    assert "m.json holds the releases of a model and cannot be read" in told.output


def test_where_the_records_are(inventory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    fleet = inventory / "group_vars" / "all" / "fleet.yml"
    elsewhere = tmp_path_factory.mktemp("state")
    append(elsewhere, release(1, model="n"))
    assert "n" in history("-i", str(inventory), "--state-dir", str(elsewhere)).output
    fleet.write_text(f"fleet_state_dir: {elsewhere}\n", encoding="utf-8")
    assert [one["model"] for one in json.loads(history("-i", str(inventory), "--json").output)["models"]] == [
        "n"
    ]
    fleet.write_text("fleet_state_dir: .modelyard\n", encoding="utf-8")
    assert [one["model"] for one in json.loads(history("-i", str(inventory), "--json").output)["models"]] == [
        "m"
    ]
    fleet.write_text("fleet_state_dir: '{{ somewhere }}'\n", encoding="utf-8")
    told = history("-i", str(inventory))
    assert told.exit_code == 1
    assert "give --state-dir" in told.output
