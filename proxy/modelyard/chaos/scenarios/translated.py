"""A client of TGI's API in front of engines with OpenAI's: what breaks must not be translated into an end."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .. import answers
from ..answers import CHUNKED, EVENT_STREAM, LAST_CHUNK, chunk, head
from ..client import Answer, Client
from ..engine import Exchange, Script
from ..faults import first, reset
from ..scenario import Scenario, expect
from ..stage import Stage
from .acts import once_each

_GROUP = "translated"
_INCOMPLETE = "incomplete_generation"
_TRUTH = "the pieces that came, then TGI's error event or a cut; no generated_text, not sent again"


def _events(prompt: str) -> list[bytes]:
    """A text completion's stream as vLLM sends it."""
    pieces = [f"{prompt} ", "one ", "two"]
    shown = [
        {"choices": [{"index": 0, "text": piece, "finish_reason": "length" if piece == "two" else None}]}
        for piece in pieces
    ]
    usage = {"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}}
    return [*(b"data: " + json.dumps(item).encode() + b"\n\n" for item in (*shown, usage)), answers.DONE]


def _streams(count: int, *more: bytes, whole: bool = False, size: int = 0, rest: int = 9) -> Script:
    """``count`` events, then ``more``, then those from number ``rest`` on; ``whole`` ends the body as HTTP
    demands; ``size`` sends crumbs.
    """

    async def script(x: Exchange) -> None:
        events = _events(x.heard.prompt)
        parts = [*events[:count], *more, *events[rest:]]
        data = head(200, EVENT_STREAM, CHUNKED) + b"".join(map(chunk, parts)) + (LAST_CHUNK if whole else b"")
        await (x.drip(data, size) if size else x.send(data))
        if not whole:
            x.close()

    return script


_GOOD = _streams(9, whole=True)


async def _ask(stage: Stage, prompt: str) -> Answer:
    async with await Client.connect(stage.proxy.port) as client:
        body = {"inputs": prompt, "parameters": {"max_new_tokens": 3, "details": True}}
        await client.post(f"/tgi/{stage.model}/generate_stream", body)
        return await client.rest()


def _objects(answer: Answer) -> list[dict[str, object]]:
    """The stream's objects. Raises ``Surprise`` for what is no event of TGI's."""
    found = []
    for event in filter(None, answer.body.split(b"\n\n")):
        expect(event.startswith(b"data:"), f"the stream holds {event[:60]!r}")
        found.append(json.loads(event[5:]))
    return found


def _expect_whole(answer: Answer, prompt: str) -> None:
    said = _objects(answer) if answer.status == 200 and answer.whole else []
    expect(said, f"the client got {answer.told()}")
    expect(said[-1].get("generated_text") == f"{prompt} one two", f"the answer ends with {said[-1]}")


async def _plays(stage: Stage, script: Script) -> tuple[Answer, str]:
    await stage.cast(first(script, then=_GOOD))
    prompt = stage.prompt()
    answer = await _ask(stage, prompt)
    return answer, prompt


def _breaks(name: str, fault: str, script: Script, kind: str) -> Scenario:
    """``script`` breaks after its first piece; ``kind`` is the ``error_type`` that tells of it."""

    async def play(stage: Stage) -> str:
        answer, prompt = await _plays(stage, script)
        said = _objects(answer)
        expect(answer.status == 200 and len(said) >= 1, f"the client got {answer.told()}")
        expect("token" in said[0], f"the first piece is missing: {said[0]}")
        expect(not any(item.get("generated_text") for item in said), "the broken stream got an end")
        told = "error" in said[-1]
        expect(told or not answer.whole, "the broken stream looks whole")
        expect(not told or said[-1].get("error_type") == kind, f"the error is not of type {kind}: {said[-1]}")
        once_each(stage.heard(prompt), 1)
        _expect_whole(await _ask(stage, later := stage.prompt()), later)
        return f"one piece, then {'an error event' if told else 'a cut'}; sent once"

    return Scenario(name, _GROUP, fault, _TRUTH, play)


async def _elsewhere(stage: Stage) -> str:
    scripts: Sequence[Script] = (reset, _streams(0), _streams(0, _overloaded(), whole=True))
    for script in scripts:
        answer, prompt = await _plays(stage, script)
        _expect_whole(answer, prompt)
        once_each(stage.heard(prompt), 2)
    return f"{len(scripts)} of {len(scripts)} answered by the other replica"


async def _crumbs(stage: Stage) -> str:
    answer, prompt = await _plays(stage, _GOOD)
    _expect_whole(answer, prompt)
    for size in (1, 2, 3, 7, 64):
        await stage.cast(_streams(9, whole=True, size=size))
        crumbs = await _ask(stage, prompt)
        expect(crumbs.whole, f"in pieces of {size}: {crumbs.told()}")
        expect(_timeless(crumbs) == _timeless(answer), f"in pieces of {size} the answer differs")
    return "the same objects in pieces of 1, 2, 3, 7 and 64 bytes"


def _timeless(answer: Answer) -> list[dict[str, object]]:
    """The objects without the seed, which is drawn for each request."""
    said = _objects(answer)
    for item in said:
        if isinstance(details := item.get("details"), dict):
            details.pop("seed", None)
    return said


def _overloaded() -> bytes:
    error = {"error": {"message": "no room", "type": "overloaded_error", "code": 503}}
    return b"data: " + json.dumps(error).encode() + b"\n\n"


SCENARIOS = (
    Scenario(
        "translated-elsewhere",
        _GROUP,
        "RST, an empty stream, an error as its first event",
        "another replica answers; the client notices nothing",
        _elsewhere,
    ),
    _breaks("translated-cut", "the stream is cut after its first piece", _streams(1), _INCOMPLETE),
    _breaks(
        "translated-no-end",
        "the body ends well after the first piece",
        _streams(1, whole=True),
        _INCOMPLETE,
    ),
    _breaks(
        "translated-error",
        "an error event in place of the second piece, then the rest",
        _streams(1, _overloaded(), whole=True, rest=2),
        "overloaded",
    ),
    _breaks(
        "translated-garbage",
        "an event that is no JSON in place of the second piece, then the rest",
        _streams(1, b"data: {oops\n\n", whole=True, rest=2),
        "generation",
    ),
    Scenario("translated-crumbs", _GROUP, "the stream comes in crumbs", "the same answer", _crumbs),
)
