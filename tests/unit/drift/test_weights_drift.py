"""Directories of weights against their declared source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.drift.weights import weights_difference
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    MANIFEST,
    make_manifest,
    write_manifest,
)

OLD, NEW = "a" * 40, "b" * 40


def item(place: Path, revision: str = OLD) -> dict[str, Any]:
    source = {"hub": "org/model", "revision": revision}
    return {"model": "m", "source": source, "destination": str(place), "owner": -1, "group": -1}


def test_what_the_marker_says_counts(tmp_path: Path) -> None:
    place = tmp_path / "weights"
    assert (weights_difference(item(place)) or {})["found"] == "no such directory"
    place.mkdir()
    (place / "model.bin").write_bytes(b"12345")
    assert (weights_difference(item(place)) or {})["field"] == "marker"
    write_manifest(place, make_manifest(place, "m", item(place)["source"]), -1, -1)
    assert weights_difference(item(place)) is None
    differs = weights_difference(item(place, NEW)) or {}
    assert (differs["field"], differs["wanted"], differs["found"]) == (
        "revision",
        f"org/model at {NEW[:12]}",
        f"org/model at {OLD[:12]}",
    )
    (place / "model.bin").write_bytes(b"1")
    assert "has 1 bytes instead of 5" in (weights_difference(item(place)) or {})["found"]
    (place / MANIFEST).write_text("{", encoding="utf-8")
    assert "cannot be read" in (weights_difference(item(place)) or {})["found"]


def test_a_path_of_ones_own_must_be_there(tmp_path: Path) -> None:
    given = {"model": "m", "source": {"path": str(tmp_path / "own")}, "owner": -1, "group": -1}
    assert (weights_difference(given) or {})["field"] == "path"
    (tmp_path / "own").write_bytes(b"x")
    assert weights_difference(given) is None


def test_credentials_of_a_url_are_not_shown(tmp_path: Path) -> None:
    source = {"url": "https://me:hush@host/model.tar", "sha256": "c" * 64}
    found = weights_difference(item(tmp_path / "w") | {"source": source}) or {}
    assert "hush" not in found["wanted"]
    assert "host/model.tar" in found["wanted"]
