"""TGI's routes as its clients call them."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

# All keys that the client `text-generation` 0.7.0 sends.
PARAMETERS = {
    "do_sample": False, "max_new_tokens": 3, "return_full_text": False, "stop": [], "watermark": False,
    "details": True, "decoder_input_details": False,
    **dict.fromkeys([
        "repetition_penalty", "seed", "temperature", "top_k", "top_p", "truncate", "typical_p", "best_of",
        "top_n_tokens", "grammar", "frequency_penalty",
    ]),
}  # fmt: skip
ONCE = "Once upon a time"


@pytest.fixture
async def tgi(engine) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(engine.url) as session:
        yield session


def events(body: str) -> list[dict]:
    assert "[DONE]" not in body
    blocks = body.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data:{") for block in blocks)
    return [json.loads(block.removeprefix("data:")) for block in blocks]


async def post(session: aiohttp.ClientSession, path: str, inputs: str = ONCE, **parameters: object):
    async with session.post(path, json={"inputs": inputs, "parameters": parameters}) as response:
        text = await response.text()
        return response, events(text) if response.content_type == "text/event-stream" else json.loads(text)


async def test_the_base_url_answers_with_a_list(tgi: aiohttp.ClientSession) -> None:
    body = {"inputs": ONCE, "parameters": PARAMETERS, "stream": False}
    async with tgi.post("/", json=body) as response:
        (answer,) = await response.json()
    assert answer["generated_text"] == "Once upon a"
    details = answer["details"]
    assert {key: details[key] for key in ("finish_reason", "generated_tokens", "seed", "prefill")} == {
        "finish_reason": "length", "generated_tokens": 3, "seed": None, "prefill": [],
    }  # fmt: skip
    assert [token["text"] for token in details["tokens"]] == ["Once", " upon", " a"]
    assert set(details["tokens"][0]) == {"id", "text", "logprob", "special"}
    assert "best_of_sequences" not in details
    assert "top_tokens" not in details
    assert response.headers["x-prompt-tokens"] == "4"
    assert response.headers["x-generated-tokens"] == "3"
    assert response.headers["x-compute-characters"] == "16"
    assert response.headers["x-echo-instance"] == "one"
    for name in ("total", "validation", "queue", "inference"):
        assert int(response.headers[f"x-{name}-time"]) >= 0


async def test_the_base_url_streams_when_asked(tgi: aiohttp.ClientSession) -> None:
    async with tgi.post("/", json={"inputs": ONCE, "parameters": PARAMETERS, "stream": True}) as response:
        found = events(await response.text())
    assert [event["token"]["text"] for event in found] == ["Once", " upon", " a"]
    assert [event["generated_text"] for event in found] == [None, None, "Once upon a"]
    assert [event["details"] for event in found[:-1]] == [None, None]
    assert found[-1]["details"] == {
        "finish_reason": "length", "generated_tokens": 3, "seed": None, "input_length": 4,
    }  # fmt: skip
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "x-compute-type" in response.headers


async def test_generate_is_one_object_without_details(tgi: aiohttp.ClientSession) -> None:
    _, answer = await post(tgi, "/generate")
    assert answer == {"generated_text": ONCE}


async def test_the_stop_sequence_stays_in_the_text(tgi: aiohttp.ClientSession) -> None:
    _, answer = await post(tgi, "/generate", stop=["n a"], details=True)
    assert answer["generated_text"] == "Once upon a"
    assert answer["details"]["finish_reason"] == "stop_sequence"
    _, found = await post(tgi, "/generate_stream", stop=["n a"])
    assert "".join(event["token"]["text"] for event in found) == found[-1]["generated_text"] == "Once upon a"


async def test_full_text_truncation_and_top_tokens(tgi: aiohttp.ClientSession) -> None:
    _, answer = await post(
        tgi,
        "/generate",
        truncate=2,
        return_full_text=True,
        details=True,
        top_n_tokens=1,
        decoder_input_details=True,
    )
    assert answer["generated_text"] == ONCE + "a time"
    assert [token["text"] for token in answer["details"]["prefill"]] == [" a", " time"]
    assert [[token["text"] for token in top] for top in answer["details"]["top_tokens"]] == [["a"], [" time"]]
    assert answer["details"]["finish_reason"] == "eos_token"


async def test_best_of_tells_the_others(tgi: aiohttp.ClientSession) -> None:
    _, answer = await post(tgi, "/generate", best_of=2, do_sample=True, details=True)
    (other,) = answer["details"]["best_of_sequences"]
    assert (answer["generated_text"], other["generated_text"]) == (ONCE, "upon a time Once")


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"temperature": 0}, "`temperature` must be strictly positive"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"best_of": 2, "do_sample": True}, "`best_of` != 1 is not supported when streaming"),
        ({"decoder_input_details": True}, "`decoder_input_details` == true is not supported when streaming"),
        ({"max_new_tokens": 1000}, "`max_new_tokens` must be <= 100"),
        ({"stop": list("abcde")}, "up to 4 stop sequences"),
    ],
)
async def test_what_the_model_cannot_do_is_told_inside_the_stream(
    tgi: aiohttp.ClientSession, parameters: dict, part: str
) -> None:
    response, found = await post(tgi, "/generate_stream", **parameters)
    assert response.status == 200
    (event,) = found
    assert part in event["error"]
    assert event["error_type"] == "validation"


async def test_what_the_model_cannot_do_is_422_without_a_stream(tgi: aiohttp.ClientSession) -> None:
    response, answer = await post(tgi, "/generate", best_of=2)
    assert response.status == 422
    assert answer == {
        "error": "Input validation error: you must use sampling when `best_of` is > 1",
        "error_type": "validation",
    }


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream", "/tokenize"])
@pytest.mark.parametrize(
    ("body", "part"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object, not a list"),
        ('{"inputs": NaN}', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"nothing": "x"}', "`inputs` is missing"),
        ('{"inputs": 5}', "`inputs` must be a string"),
        ('{"inputs": "x", "parameters": []}', "`parameters` must be an object"),
        (
            '{"inputs": "x", "parameters": {"max_new_tokens": -1}}',
            "`parameters.max_new_tokens` must be at least 1",
        ),
    ],
)
async def test_bodies_of_the_wrong_shape(tgi: aiohttp.ClientSession, path: str, body: str, part: str) -> None:
    async with tgi.post(path, data=body) as response:
        answer = await response.json()
    assert response.status == 422
    assert part in answer["error"]
    assert answer["error_type"] == "validation"


async def test_info_tells_the_limits(tgi: aiohttp.ClientSession) -> None:
    async with tgi.get("/info") as response:
        info = await response.json()
    assert (info["model_id"], info["max_total_tokens"], info["max_input_tokens"]) == ("demo", 100, 99)


async def test_tokenize_gives_offsets_into_the_text(tgi: aiohttp.ClientSession) -> None:
    _, tokens = await post(tgi, "/tokenize")
    assert [ONCE[token["start"] : token["stop"]] for token in tokens] == ["Once", " upon", " a", " time"]
    async with tgi.post("/chat_tokenize", json={"messages": [{"role": "user", "content": "Hi"}]}) as response:
        answer = await response.json()
    text = answer["templated_text"]
    assert "Hi" in text
    assert [text[token["start"] : token["stop"]] for token in answer["tokenize_response"]] == [
        token["text"] for token in answer["tokenize_response"]
    ]


async def test_a_body_that_is_too_large(tgi: aiohttp.ClientSession) -> None:
    huge = b" " * (32 * 1024 * 1024 + 1)
    async with tgi.post("/generate", data=io.BytesIO(huge)) as response:
        assert (response.status, (await response.json())["error_type"]) == (413, "unknown")
    async with tgi.post("/v1/completions", data=io.BytesIO(huge)) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")


async def test_unknown_routes_and_methods(tgi: aiohttp.ClientSession) -> None:
    async with tgi.get("/nowhere") as response:
        assert (response.status, (await response.json())["error"]) == (404, "Not Found: GET /nowhere")
    async with tgi.get("/generate") as response:
        assert response.status == 405
    async with tgi.get("/v1/nowhere") as response:
        assert (response.status, (await response.json())["error"]["code"]) == (404, "not_found")
