"""Containers against their wish, over documents that a real engine gave."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.drift.containers import (
    EngineError,
    container_differences,
    containers_of_fleet,
    engine,
)

from tests.tools.record_containers import HERE, WISHES, assignment

FLEET = "f"


def differences(wish: str, container: str) -> set[tuple[str, str]]:
    """Kind and field of what differs when one wish's container stands where another one's should."""
    wanted = assignment(**(json.loads((HERE / f"{wish}.json").read_text(encoding="utf-8"))[0] or {}))
    _, inspected, image = json.loads((HERE / f"{container}.json").read_text(encoding="utf-8"))
    inspected = inspected | {"Name": f"/{FLEET}-{wanted['replica']}"}
    asked: list[str] = []

    def ask(path: str) -> Any:
        asked.append(path)
        return image if path.startswith("/images/") else None

    found = container_differences(ask, FLEET, wanted, inspected)
    assert len(asked) == 2
    assert all(set(item) == {"kind", "field", "wanted", "found", "seen_in"} for item in found)
    return {(item["kind"], item["field"]) for item in found}


@pytest.mark.parametrize("name", WISHES)
def test_what_was_made_from_a_wish_has_no_drift(name: str) -> None:
    assert differences(name, name) == set()


@pytest.mark.parametrize("other", ["cdi", "device_request", "rocm"])
def test_gpus_are_gpus(other: str) -> None:
    assert any(kind == "gpus" for kind, _ in differences(other, "plain"))
    assert any(kind == "gpus" for kind, _ in differences("plain", other))


def test_the_container_with_the_right_name_is_the_replica() -> None:
    names = ("f-h.m.0.previous", "other", "f-h.m.0", "f-h.m.0.next", "f-h.m.1-odd")
    documents = {
        name: {"Id": name, "Name": f"/{name}", "State": {"Status": "exited" if "prev" in name else "running"}}
        for name in names
    }

    def ask(path: str) -> Any:
        if path.startswith("/containers/json"):
            replicas = {name: "h.m.1" if "m.1" in name else "h.m.0" for name in names}
            return [{"Id": name, "Labels": {"modelyard.replica": replicas[name]}} for name in names]
        return documents.get(path.split("/")[2])

    running, leftovers = containers_of_fleet(ask, FLEET)
    assert {replica: item["Id"] for replica, item in running.items()} == {
        "h.m.0": "f-h.m.0",
        "h.m.1": "f-h.m.1-odd",
    }
    assert [(item["name"], item["mended"]) for item in leftovers] == [
        ("f-h.m.0.previous", False),
        ("other", False),
        ("f-h.m.0.next", True),
    ]


def test_a_container_that_goes_away_while_we_look_is_left_out() -> None:
    def ask(path: str) -> Any:
        return [{"Id": "x", "Labels": {"modelyard.replica": "h.m.0"}}] if "json?" in path else None

    assert containers_of_fleet(ask, FLEET) == ({}, [])


def test_an_engine_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(EngineError, match="nothing"):
        engine(tmp_path / "nothing.sock", 1.0)("/containers/json")
