"""The golden answer: asked the same way each time, judged by text, pattern and speed, told in one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import golden, probe
from ansible_collections.modelyard.fleet.plugins.module_utils.golden import Golden

TARGET = probe.Target("h.m.0", "http://e", "/live", "/ready", 10.0, "m", "openai", "generate", "hi", 4)


def test_a_model_without_golden_has_none() -> None:
    assert golden.read({}) is None
    assert golden.read({"prompt": "x", "expect": "y"}) == Golden("x", expect="y")


@pytest.mark.parametrize(
    ("wish", "text", "tokens", "seconds", "said"),
    [
        ({"expect": "Paris"}, " Paris\n", None, 1.0, None),
        ({"expect": "Paris"}, "paris", None, 1.0, 'its golden answer is not "Paris" but "paris"'),
        ({"pattern": "(?i)par.s"}, "It is PARIS.", None, 1.0, None),
        ({"pattern": "^Paris"}, "It is\nParis", 3, 1.0, 'does not match "^Paris": "It is\\nParis"'),
        ({"min_tokens_per_s": 10}, "text", 20, 2.0, None),
        ({"min_tokens_per_s": 10}, "text", 19, 2.0, "at 9.5 tokens/s (19 in 2.00 s), and 10 are asked for"),
        ({"min_tokens_per_s": 10}, "text", None, 2.0, "does not say how many tokens"),
        ({"expect": "Paris", "min_tokens_per_s": 10}, "Paris", 1, 2.0, "0.5 tokens/s"),
    ],
)
def test_verdicts(
    wish: dict[str, Any], text: str, tokens: int | None, seconds: float, said: str | None
) -> None:
    found = golden.verdict(Golden("?", **wish), text, tokens, seconds)
    assert (found is None) is (said is None)
    assert said is None or said in (found or "")


def test_a_long_answer_is_cut() -> None:
    found = golden.verdict(Golden("?", expect="short"), "x" * 5000, None, 1.0)
    assert found is not None
    assert len(found) < 320
    assert "(5000 characters)" in found


@pytest.mark.parametrize(
    ("document", "tokens"),
    [
        ({"usage": {"completion_tokens": 7}}, 7),
        ([{"generated_text": "x", "details": {"generated_tokens": 5}}], 5),
        ({"generated_text": "x"}, None),
        ([], None),
        ("odd", None),
    ],
)
def test_tokens_as_the_engine_counts_them(document: Any, tokens: int | None) -> None:
    assert golden.tokens_of(document) == tokens


def test_it_is_asked_without_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any], float]] = []

    def request(url: str, body: dict[str, Any], timeout_s: float) -> tuple[int, bytes]:
        asked.append((url.removeprefix(TARGET.url), body, timeout_s))
        if url.endswith("/chat/completions"):
            return 400, b"{}"
        return 200, json.dumps({"choices": [{"text": "wrong"}], "usage": {"completion_tokens": 1}}).encode()

    monkeypatch.setattr(probe, "request", request)
    outcome = probe.Outcome(TARGET.replica, TARGET.url, ready=True, ok=True)
    probe.generate(TARGET, outcome, 99.0, golden=Golden("Say right.", expect="right", timeout_s=5.0))
    assert [(path, body["temperature"], body["seed"], limit) for path, body, limit in asked] == [
        ("/v1/chat/completions", 0, 0, 5.0),
        ("/v1/completions", 0, 0, 5.0),
    ]
    assert (outcome.ok, outcome.text, outcome.error) == (
        False,
        "wrong",
        'its golden answer is not "right" but "wrong"',
    )
    path, body = golden.questions(Golden("p"), "m", "tgi")[0]
    assert (path, body["parameters"]["do_sample"], body["parameters"]["seed"]) == ("/generate", False, 0)
