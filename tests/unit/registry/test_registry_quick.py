"""The quick test of a registry never accepts what the schema does not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.registry.check import _validator, registry_schema
from modelyard.registry.quick import quick_test

SOUND: dict[str, Any] = {
    "version": 1,
    "generation": 3,
    "models": {
        "m": {
            "name": "M",
            "hf_name": None,
            "task": "embed",
            "aliases": ["org/M"],
            "fallbacks": ["n"],
            "timeouts": {"connect_s": 1, "total_s": 0.5},
            "limits": {"n": None, "max_tokens": 4},
            "queue": {"size": 0, "wait_s": 1},
            "canary_percent": 5,
            "mirror": {"model": "n", "percent": 1},
            "clients": ["a"],
            "endpoints": [
                {
                    "id": "a.m.0",
                    "url": "http://a:1",
                    "engine": "vllm",
                    "weight": 2,
                    "tier": 1,
                    "track": "canary",
                    "max_in_flight": None,
                    "state": "draining",
                    "host": "a",
                    "expires_at": "2030-01-01T00:00:00Z",
                }
            ],
        },
        "n": {"endpoints": []},
    },
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70_000),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.sampled_from(["generate", "active", "a b", "a.m.0\n", "x" * 300]),
    st.lists(st.sampled_from(["a", "b", 1, True, 1.0]), max_size=3),
    st.dictionaries(
        st.sampled_from(["id", "size", "model", "endpoints", "odd"]), st.integers(0, 2), max_size=2
    ),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def test_what_is_sound_passes() -> None:
    assert quick_test(registry_schema())(SOUND)
    assert _validator().is_valid(SOUND)


@given(st.sampled_from(places(SOUND)[1:]), st.sampled_from(["set", "drop", "add", "rename"]), ODD)
def test_it_never_says_yes_where_the_schema_says_no(path: tuple[Any, ...], how: str, value: Any) -> None:
    data = deepcopy(SOUND)
    parent: Any = data
    for key in path[:-1]:
        parent = parent[key]
    if how == "drop":
        del parent[path[-1]]
    elif how == "add" and isinstance(parent, dict):
        parent["odd"] = value
    elif how == "rename" and isinstance(parent, dict):
        parent[str(value)] = parent.pop(path[-1])
    else:
        parent[path[-1]] = value
    assert not quick_test(registry_schema())(data) or _validator().is_valid(data)


def test_a_keyword_that_it_does_not_know_is_no_oversight() -> None:
    with pytest.raises(ValueError, match="multipleOf"):
        quick_test({"multipleOf": 2})
