"""Releases and holds on disk: written whole, bounded, and never overwritten when they cannot be understood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelyard.errors import ConfigError
from modelyard.releases import (
    FAILED,
    MOST_KEPT,
    PUT_BACK,
    Hold,
    append,
    read_holds,
    read_releases,
    write_holds,
)
from modelyard.releases.store import known_models
from tests.unit.releases.made import release

HOLD = Hold(2, "hash", {"h1": "image:1"}, "2026-05-04T12:00:00+00:00", "ann@here")


def test_nothing_is_recorded_at_first(tmp_path: Path) -> None:
    assert read_releases(tmp_path, "m").releases == ()
    assert read_releases(tmp_path, "m").next_number == 1
    assert read_holds(tmp_path) == {}
    assert known_models(tmp_path) == []


def test_what_is_written_is_read_and_holds_no_secret(tmp_path: Path) -> None:
    append(tmp_path, release(1))
    append(tmp_path, release(2, args={"max_model_len": 8192}))
    store = read_releases(tmp_path, "m")
    assert [one.number for one in store.releases] == [1, 2]
    assert store.releases[0].launch == release(1).launch
    assert store.releases[0].hosts == ("h1",)
    assert len({one.id for one in store.releases}) == 2
    assert all(len(one.id) == 12 for one in store.releases)
    assert store.releases[0].as_dict() == read_releases(tmp_path, "m").releases[0].as_dict()
    path = tmp_path / "releases" / "m.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret-1" not in path.read_text(encoding="utf-8")
    assert known_models(tmp_path) == ["m"]
    assert [file.name for file in path.parent.iterdir()] == ["m.json"], "no temporary file is left"


WHOLE = json.dumps({"version": 1, "releases": [release(1).as_dict()]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        WHOLE[: len(WHOLE) // 2],
        "[]",
        "null",
        '{"version": 2, "releases": []}',
        '{"version": 1, "releases": [{}]}',
        '{"version": 1, "releases": {"a": 1}}',
        json.dumps({"version": 1, "releases": [release(1).as_dict()] * 2}),
        json.dumps({"version": 1, "releases": [release(1).as_dict() | {"outcome": "perhaps"}]}),
        json.dumps({"version": 1, "releases": [release(1).as_dict() | {"launch": []}]}),
        "\0",
    ],
)
def test_a_broken_file_is_an_error_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "releases" / "m.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    for action in (lambda: read_releases(tmp_path, "m"), lambda: append(tmp_path, release(2))):
        with pytest.raises(ConfigError, match=r"m\.json .* cannot be read .* move it away"):
            action()
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1, "holds": {"m": {}}}', '{"version": 1, "holds": []}']
)
def test_broken_holds_are_an_error_too(tmp_path: Path, text: str) -> None:
    (tmp_path / "holds.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"holds\.json says which models"):
        read_holds(tmp_path)


def test_holds_are_kept(tmp_path: Path) -> None:
    write_holds(tmp_path / "new", {"m": HOLD})
    assert read_holds(tmp_path / "new") == {"m": HOLD}


def test_a_directory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "releases").write_text("in the way", encoding="utf-8")
    with pytest.raises(ConfigError):
        append(tmp_path, release(1))


def test_history_is_bounded_and_failed_attempts_go_first(tmp_path: Path) -> None:
    for number in range(1, 31):
        append(tmp_path, release(number))
    for number in range(31, 31 + MOST_KEPT):
        append(tmp_path, release(number, outcome=PUT_BACK if number % 2 else FAILED))
    store = read_releases(tmp_path, "m")
    assert len(store.releases) == MOST_KEPT
    assert [one.number for one in store.releases[:30]] == list(range(1, 31)), (
        "good releases outlive bad attempts"
    )
    assert store.releases[-1].number == 80
    assert store.next_number == 81
    for number in range(81, 200):
        append(tmp_path, release(number), protected={3})
    store = read_releases(tmp_path, "m")
    assert [one.number for one in store.releases] == [3, *range(151, 200)], "what a model is held at is kept"


def test_what_runs_and_what_it_went_back_to_are_kept(tmp_path: Path) -> None:
    append(tmp_path, release(1))
    for number in range(2, 60):
        append(tmp_path, release(number))
    append(tmp_path, release(60, rollback_of=30))
    for number in range(61, 140):
        append(tmp_path, release(number, outcome=FAILED))
    numbers = [one.number for one in read_releases(tmp_path, "m").releases]
    assert len(numbers) == MOST_KEPT
    assert {30, 60, 139} <= set(numbers)
