"""Requests that begin alike have one key, and others have not."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.gateway.affinity import affinity_key

LONG = "You answer in one word. " * 40


def key(**body: Any) -> str | None:
    return affinity_key("prefix_hash", None, body)


def said(*texts: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text} for text in texts]


def test_what_differs_after_the_beginning_does_not_count() -> None:
    assert key(messages=said(LONG, "one")) == key(messages=said(LONG, "two"), temperature=1)
    assert key(prompt=LONG + "one") == key(prompt=LONG + "two")
    assert key(prompt=list(range(1000))) == key(prompt=[*range(600), 7])


@pytest.mark.parametrize(
    "other",
    [
        {"messages": said("two")},
        {"messages": said("on", "e")},
        {"messages": [{"role": "system", "content": "one"}]},
        {"messages": [{"role": "user", "content": ["one"], "name": "x"}]},
        {"prompt": "one"},
        {"prompt": [1, 2]},
        {"prompt": [12]},
        {"prompt": [[1], [3]]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "another"}]}]},
        {"messages": [{"role": "user", "content": None}]},
    ],
)
def test_what_differs_in_the_beginning_does(other: dict[str, Any]) -> None:
    assert key(**other) is not None
    assert key(**other) != key(messages=said("one"))


def test_nothing_to_stick_to() -> None:
    assert key(model="m") is None
    assert key(messages=[]) is None
    assert affinity_key("least_loaded", "s", {"prompt": "x"}) is None


def test_sessions() -> None:
    assert affinity_key("session_hash", "named", {"user": "u"}) == "named"
    assert affinity_key("session_hash", None, {"session_id": "s", "user": "u"}) == "s"
    assert affinity_key("session_hash", None, {"user": "u"}) == "u"
    assert affinity_key("session_hash", None, {"user": 7}) is None


def test_no_depth_and_no_length_is_too_much() -> None:
    deep: Any = "bottom"
    for _ in range(100_000):
        deep = [deep]
    assert key(prompt=deep) == "bottom"
    picture = {"type": "image_url", "image_url": {"url": "data:" + "A" * 20_000_000}}
    found = key(messages=[{"role": "user", "content": [picture] * 1000}])
    assert found is not None
    assert len(found) <= 512
