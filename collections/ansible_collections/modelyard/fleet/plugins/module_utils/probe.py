"""Ask replicas whether they live, are ready, and really generate."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.golden import (
    Golden,
    questions,
    tokens_of,
    verdict,
)

PROBE_TIMEOUT_S = 5.0
MOST_AT_ONCE = 32
"""Replicas of a host that are asked at the same time."""


@dataclass(frozen=True)
class Target:
    """One replica to be asked. Times in seconds; ``url`` has no trailing slash."""

    replica: str
    url: str
    live_path: str
    ready_path: str
    deadline_s: float
    served_name: str
    dialect: str
    task: str
    prompt: str
    max_tokens: int


def target_of(assignment: Mapping[str, Any], deadline_s: float | None) -> Target:
    """The replica that an assignment of the planner stands for; without ``deadline_s`` it gets the time that its engine
    takes to start. Raises ``KeyError`` for what the assignment lacks.
    """
    spec = assignment["spec"]
    smoke = spec.get("smoke") or {}
    return Target(
        replica=assignment["replica"],
        url=str(spec["url"]).rstrip("/"),
        live_path=spec["live_path"],
        ready_path=spec["ready_path"],
        deadline_s=float(spec["start_period_s"] if deadline_s is None else deadline_s),
        served_name=spec["served_name"],
        dialect=spec["dialect"],
        task=spec["task"],
        prompt=str(smoke.get("prompt") or "Say hello."),
        max_tokens=int(smoke.get("max_tokens") or 8),
    )


@dataclass
class Outcome:
    """What was seen of a replica. ``text`` is what it generated, None when it was not asked; ``ended``: there is
    nothing to wait for any more.
    """

    replica: str
    url: str
    live: bool = False
    ready: bool = False
    ok: bool = False
    waited_s: float = 0.0
    text: str | None = None
    generation_s: float | None = None
    error: str | None = None
    ended: bool = False


def request(url: str, body: dict[str, Any] | None, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of a GET, or of a POST of JSON. Raises ``OSError`` and ``http.client.HTTPException``."""
    data = None if body is None else json.dumps(body).encode()
    headers = {} if body is None else {"Content-Type": "application/json"}
    call = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310
    # never through a proxy of the environment: the address is this host's own
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(call, timeout=timeout_s) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def answers(url: str) -> str | None:
    """None when a GET gives 2xx, otherwise why not."""
    try:
        status, _ = request(url, None, PROBE_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return "no answer in time" if isinstance(reason, (socket.timeout, TimeoutError)) else str(reason)
    return None if 200 <= status < 300 else f"answered {status}"


def wait_ready(
    target: Target,
    gone: Callable[[], str | None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Wait until a replica is live and ready.

    ``gone`` tells why there is nothing to wait for any more (the process ended), or None.
    """
    outcome = Outcome(target.replica, target.url)
    start = clock()
    pause = 0.1
    while True:
        reason = None
        path = target.live_path
        for path in (target.live_path, target.ready_path):
            reason = answers(target.url + path)
            if reason is not None:
                break
            outcome.live = True
        outcome.waited_s = round(clock() - start, 2)
        if reason is None:
            outcome.ready = outcome.ok = True
            return outcome
        ended = gone()
        if ended is not None:
            outcome.error, outcome.ended = ended, True
            return outcome
        if clock() - start >= target.deadline_s:
            outcome.error = (
                f"{path}: {reason} after {outcome.waited_s:.0f} s (limit {target.deadline_s:.0f} s)"
            )
            return outcome
        sleep(pause)
        pause = min(pause * 1.5, 2.0)


def _questions(target: Target) -> list[tuple[str, dict[str, Any]]]:
    """Requests that a replica of this task and dialect must answer; the next is tried after a 4xx."""
    name, prompt = target.served_name, target.prompt
    if target.task == "embed":
        return [("/v1/embeddings", {"model": name, "input": prompt})]
    if target.task == "rerank":
        return [("/v1/rerank", {"model": name, "query": prompt, "documents": [prompt, "something else"]})]
    if target.task == "classify":
        return [("/classify", {"model": name, "input": prompt})]
    if target.dialect == "tgi":
        return [("/generate", {"inputs": prompt, "parameters": {"max_new_tokens": target.max_tokens}})]
    common = {"model": name, "max_tokens": target.max_tokens, "temperature": 0}
    return [
        ("/v1/chat/completions", {**common, "messages": [{"role": "user", "content": prompt}]}),
        # a base model has no chat template
        ("/v1/completions", {**common, "prompt": prompt}),
    ]


def answer_text(document: Any) -> str | None:
    """The text in an engine's answer; for embeddings and ranks a short description. None when there is none."""
    try:
        return _text(document[0] if isinstance(document, list) else document)
    except (AttributeError, IndexError, KeyError, TypeError):
        return None  # an answer of another shape


def _text(document: dict[str, Any]) -> str | None:
    if isinstance(document.get("generated_text"), str):
        return str(document["generated_text"])
    if choices := document.get("choices"):
        message = choices[0].get("message") or {}
        text = message.get("content") or message.get("reasoning_content") or message.get("reasoning")
        found = text if text is not None else choices[0].get("text")
        return None if found is None else str(found)
    if data := document.get("data"):
        if "probs" in data[0]:
            return f"class {data[0].get('label')} of {len(data[0]['probs'])}"
        return f"embedding of {len(data[0]['embedding'])} numbers"
    results = document.get("results")
    return f"{len(results)} documents ranked" if results else None


def generate(
    target: Target,
    outcome: Outcome,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
    golden: Golden | None = None,
) -> None:
    """One real generation, with ``golden`` the right one; fills ``outcome``. What hears or speaks is not asked:
    there is no sound to send and no text to see.
    """
    if target.task in ("transcribe", "speech"):
        return
    asked = _questions(target) if golden is None else questions(golden, target.served_name, target.dialect)
    status, body, path = 0, b"", ""
    try:
        for path, question in asked:
            start = clock()
            status, body = request(
                target.url + path, question, timeout_s if golden is None else golden.timeout_s
            )
            if status not in (400, 404, 405, 422):
                break
        took_s = clock() - start
        outcome.generation_s = round(took_s, 3)
        document = json.loads(body) if status == 200 else None
        outcome.text = answer_text(document)
        if not outcome.text:
            outcome.error = (
                f"{path} answered {status} without a text: {body[:300].decode('utf-8', 'replace')}"
            )
        elif golden is not None:
            outcome.error = verdict(golden, outcome.text, tokens_of(document), took_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        outcome.error = f"{path}: {error}"
    outcome.ok = outcome.error is None


def failure_text(results: list[dict[str, Any]]) -> str:
    """What is wrong with each replica that is not well, with its last log lines; empty when all are."""
    blocks = []
    for result in results:
        if not result["ok"]:
            log = "".join(f"\n    {line}" for line in result["log"])
            last_words = log and f"\n  its last words:{log}"
            blocks.append(f"{result['replica']} ({result['url']}): {result['error']}{last_words}")
    return "\n".join(blocks)


def proved(assignments: Sequence[Mapping[str, Any]], timeout_s: float) -> set[str]:
    """Which replicas are ready now and generate within ``timeout_s`` seconds, asked all at once. Raises ``KeyError``."""

    def ask(target: Target) -> Outcome:
        outcome = wait_ready(target, lambda: None)
        if outcome.ready:
            generate(target, outcome, timeout_s)
        return outcome

    if not assignments:
        return set()
    targets = [target_of(assignment, 0) for assignment in assignments]
    with ThreadPoolExecutor(min(len(targets), MOST_AT_ONCE)) as threads:
        return {outcome.replica for outcome in threads.map(ask, targets) if outcome.ok}
