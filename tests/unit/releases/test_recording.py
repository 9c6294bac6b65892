"""Which runs make a release, and with which outcome."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.releases import APPLIED, FAILED, PUT_BACK, Store, config_hash, launch_of
from modelyard.releases.recording import candidate, is_due, outcome_of
from tests.unit.releases.made import entry, image, release


def plan(**actions: str) -> dict[str, Any]:
    """A plan in which the model's replicas on hosts have these actions."""
    launch, images = launch_of(entry()), {host: image() for host in actions}
    return {
        "changes": [{"replica": f"{host}.m.0", "model": "m", "action": action} for host, action in actions.items()],
        "assignments": [
            {"replica": f"{host}.m.0", "model": "m", "host": host, "wished": True}
            for host, action in actions.items() if action != "stop"
        ],
        "launches": {
            "m": {"launch": launch, "images": images, "config": config_hash(launch, images), "rollback_of": None}
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "book", "outcome"),
    [
        ({"a": "keep", "b": "keep"}, {}, APPLIED),
        ({"a": "replace", "b": "start"}, {}, APPLIED),
        ({"a": "replace", "b": "stop"}, {"applied": ["a.m.0"], "stopped": ["b.m.0"]}, APPLIED),
        ({"a": "replace", "b": "replace"}, {"put_back": ["a.m.0"], "halt": ["a: no"]}, PUT_BACK),
        ({"a": "replace", "b": "replace"}, {"applied": ["a.m.0"], "put_back": ["b.m.0"]}, FAILED),
        ({"a": "replace", "b": "replace"}, {"out": ["a.m.0"], "halt": ["a was lost"]}, FAILED),
        # the roll ended before it came to this model
        ({"a": "replace"}, {"applied": ["a.other.0"], "halt": ["no"]}, None),
        ({"a": "replace"}, {"halt": ["no"]}, None),
        ({"a": "keep"}, {"halt": ["no"]}, APPLIED),
    ],
)
def test_the_outcome(actions: dict[str, str], book: dict[str, Any], outcome: str | None) -> None:
    found, note = outcome_of("m", plan(**actions), book)
    assert found == outcome
    assert bool(note) == (outcome in (PUT_BACK, FAILED))


def test_a_silent_host_is_in_the_note() -> None:
    assert outcome_of("m", plan(a="replace", b="unknown"), {}) == (APPLIED, "not on b.m.0, of unknown state")


def made(store: Store, outcome: str = APPLIED, seen: dict[str, Any] | None = None, **actions: str) -> Any:
    return candidate(store, plan(**actions), outcome, "", seen or {}, at="t", who="w", commits={})


def test_only_what_differs_from_what_was_applied_last_is_a_release() -> None:
    first = made(Store("m"), a="start", b="start")
    assert is_due(Store("m"), first)
    store = Store("m", (first,))
    again = made(store, a="keep", b="replace")
    assert again.number == 2
    assert not is_due(store, again), "a replica that was started anew as it was"
    assert is_due(store, made(store, a="keep", b="stop")), "fewer replicas"
    assert is_due(store, made(store, PUT_BACK, a="replace", b="replace")), "an attempt"
    tried = Store("m", (first, release(2, outcome=FAILED, args={})))
    assert not is_due(tried, made(tried, a="keep", b="keep")), (
        "compared with what was applied, not with what was tried"
    )
    assert not is_due(Store("m"), made(Store("m"), a="stop")), "nothing of it ran"


def test_what_was_observed_of_an_image_is_recorded() -> None:
    seen = {"a.m.0": {"digest": "x@sha256:1", "image_id": "sha256:2"}, "b.m.0": {"image_id": None}}
    images = made(Store("m"), seen=seen, a="start", b="start").images
    assert (images["a"]["digest"], images["a"]["image_id"]) == ("x@sha256:1", "sha256:2")
    assert (images["b"]["digest"], images["b"]["image_id"]) == (None, None)
