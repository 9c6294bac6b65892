"""Asking a replica: live, ready, a real generation; and giving up when nothing will come."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils import probe

TARGET = probe.Target("h.m.0", "http://e", "/live", "/ready", 10.0, "m", "openai", "generate", "hi", 4)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def answering(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> list[str]:
    """Requests get what stands under their path: a status, or (status, document); the last of a list stays."""
    asked: list[str] = []

    def request(url: str, body: Any, timeout_s: float) -> tuple[int, bytes]:
        path = url.removeprefix(TARGET.url)
        asked.append(path)
        answer = answers[path]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, OSError):
            raise answer
        status, document = answer if isinstance(answer, tuple) else (answer, {})
        return status, document if isinstance(document, bytes) else json.dumps(document).encode()

    monkeypatch.setattr(probe, "request", request)
    return asked


def test_it_waits_until_live_and_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"/live": [ConnectionRefusedError("refused"), 200], "/ready": [503, 200]})
    time = Time()
    outcome = probe.wait_ready(TARGET, lambda: None, time.clock, time.sleep)
    assert (outcome.ok, outcome.live, outcome.ready, outcome.error) == (True, True, True, None)
    assert 0 < outcome.waited_s < 1


def test_it_gives_up_at_the_deadline_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"/live": 200, "/ready": 503})
    time = Time()
    outcome = probe.wait_ready(TARGET, lambda: None, time.clock, time.sleep)
    assert (outcome.ok, outcome.live) == (False, True)
    assert outcome.error is not None
    assert outcome.error.startswith("/ready: answered 503 after 1")
    assert outcome.error.endswith("(limit 10 s)")


def test_it_gives_up_at_once_when_the_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"/live": TimeoutError()})
    time = Time()
    outcome = probe.wait_ready(TARGET, lambda: "its process ended", time.clock, time.sleep)
    assert (outcome.error, time.now) == ("its process ended", 0.0)


@pytest.mark.parametrize(
    ("dialect", "task", "answers", "asked", "text"),
    [
        ("openai", "generate", {"/v1/chat/completions": (200, {"choices": [{"message": {"content": "yes"}}]})},
         ["/v1/chat/completions"], "yes"),
        ("openai", "generate", {"/v1/chat/completions": 400, "/v1/completions": (200, {"choices": [{"text": "yes"}]})},
         ["/v1/chat/completions", "/v1/completions"], "yes"),
        ("tgi", "generate", {"/generate": (200, [{"generated_text": "yes"}])}, ["/generate"], "yes"),
        ("openai", "embed", {"/v1/embeddings": (200, {"data": [{"embedding": [0.1, 0.2]}]})},
         ["/v1/embeddings"], "embedding of 2 numbers"),
        ("openai", "rerank", {"/v1/rerank": (200, {"results": [{}, {}]})}, ["/v1/rerank"], "2 documents ranked"),
        ("openai", "classify", {"/classify": (200, {"data": [{"label": "good", "probs": [0.9, 0.1]}]})},
         ["/classify"], "class good of 2"),
        ("openai", "transcribe", {}, [], None),
        ("openai", "speech", {}, [], None),
    ],
)  # fmt: skip
def test_a_generation_of_each_kind(
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    task: str,
    answers: dict[str, Any],
    asked: list[str],
    text: str | None,
) -> None:
    seen = answering(monkeypatch, answers)
    target = probe.Target(**{**vars(TARGET), "dialect": dialect, "task": task})
    outcome = probe.Outcome("h.m.0", TARGET.url, ok=True)
    probe.generate(target, outcome, 5.0)
    assert (seen, outcome.text, outcome.ok) == (asked, text, True)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {"choices": [{"message": {"content": ""}}]}),
        (200, {"choices": []}),
        (200, {"choices": ["x"]}),
        (200, {"choices": [{"message": "x"}]}),
        (200, {"data": ["x"]}),
        (200, b"<html>"),
        (500, {"error": "no memory"}),
        ConnectionResetError("reset"),
    ],
)
def test_no_text_is_no_proof(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    answering(monkeypatch, {"/v1/chat/completions": answer})
    outcome = probe.Outcome("h.m.0", TARGET.url, ok=True)
    probe.generate(TARGET, outcome, 5.0)
    assert not outcome.ok
    assert outcome.error is not None
    assert outcome.error.startswith("/v1/chat/completions")


def test_who_gives_an_answer_now_is_told_without_waiting_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    well = (200, {"choices": [{"message": {"content": "yes"}}]})
    answering(
        monkeypatch,
        {
            "/well/live": 200, "/well/ready": 200, "/well/v1/chat/completions": well,
            "/mute/live": 200, "/mute/ready": 200, "/mute/v1/chat/completions": 500,
            "/late/live": 200, "/late/ready": [503, 200],
            "/gone/live": ConnectionRefusedError("refused"),
        },
    )  # fmt: skip
    kind = {"live_path": "/live", "ready_path": "/ready", "start_period_s": 600}
    kind |= {"served_name": "m", "dialect": "openai", "task": "generate"}
    names = ("well", "mute", "late", "gone")
    given = [{"replica": name, "spec": {**kind, "url": f"{TARGET.url}/{name}/"}} for name in names]
    assert probe.proved(given, 5.0) == {"well"}
    assert probe.proved([], 5.0) == set()
