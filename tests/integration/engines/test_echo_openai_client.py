"""The `openai` client from PyPI against a running engine."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

HELLO = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Once upon a time"}]


@pytest.fixture
def client(engine) -> Iterator[OpenAI]:
    with OpenAI(base_url=engine.url + "/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_models_are_listed_and_found(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["demo", "alias"]
    assert client.models.retrieve("alias").root == "demo"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("other")


def test_chat_answers_with_the_last_message(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO)
    assert answer.choices[0].message.content == "Once upon a time"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


def test_lengths_stops_and_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="alias", messages=HELLO, max_completion_tokens=6, n=2)
    assert answer.model == "alias"
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        (0, "Once upon a time Once upon", "length"),
        (1, "upon a time Once upon a", "length"),
    ]
    answer = client.chat.completions.create(model="demo", messages=HELLO, stop=["a t"])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Once upon ", "stop")


def test_a_streamed_chat_is_the_plain_one_in_pieces(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="demo", messages=HELLO, n=2, stream=True, stream_options={"include_usage": True}
    )
    texts, reasons, usages = {0: "", 1: ""}, {}, []
    for chunk in stream:
        usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert texts == {0: "Once upon a time", 1: "upon a time Once"}
    assert reasons == {0: "stop", 1: "stop"}
    assert usages[:-1] == [None] * (len(usages) - 1)
    assert usages[-1] is not None
    assert usages[-1].completion_tokens == 8


def test_completions_of_several_prompts(client: OpenAI) -> None:
    answer = client.completions.create(model="demo", prompt=["a b", "c"], echo=True, max_tokens=2)
    assert [choice.text for choice in answer.choices] == ["a ba b", "cc c"]
    answer = client.completions.create(model="demo", prompt=[[1, 22], [333]])
    assert [choice.text for choice in answer.choices] == ["1 22", "333"]


def test_streamed_completion(client: OpenAI) -> None:
    stream = client.completions.create(model="demo", prompt="one two three", stream=True, echo=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "one two threeone two three"


def test_the_names_that_tgi_clients_send_mean_the_model_that_is_there(client: OpenAI) -> None:
    for name in ("tgi", "dummy"):
        assert client.chat.completions.create(model=name, messages=HELLO).model == "demo"


@pytest.mark.parametrize(
    ("change", "param", "part"),
    [
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "is missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "not an integer"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}
                ]
            },
            "messages[0].content",
            "reads text only",
        ),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": "5"}, "max_tokens", "not a string"),
        ({"max_tokens": True}, "max_tokens", "not a boolean"),
        ({"n": 65}, "n", "at most 64"),
        ({"temperature": 3}, "temperature", "between 0 and 2"),
        ({"top_p": "high"}, "top_p", "must be a number"),
        ({"stop": [""]}, "stop", "non-empty"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream: true"),
        ({"stream": "yes"}, "stream", "true or false"),
    ],
)
def test_bad_values_are_named(client: OpenAI, change: dict, param: str, part: str) -> None:
    body = {"model": "demo", "messages": HELLO, **change}
    with pytest.raises(openai.BadRequestError, match=part) as caught:
        client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_an_unknown_model_names_the_served_ones(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="demo, alias") as caught:
        client.chat.completions.create(model="nope", messages=HELLO)
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    "more", [{"max_tokens": 99}, {"messages": [{"role": "user", "content": "w " * 100}]}]
)
def test_what_does_not_fit_says_so(client: OpenAI, more: dict) -> None:
    with pytest.raises(openai.BadRequestError, match="context length is 100") as caught:
        client.chat.completions.create(**{"model": "demo", "messages": HELLO, **more})
    assert caught.value.code == "context_length_exceeded"


def test_nulls_count_as_absent(client: OpenAI) -> None:
    nulls = dict.fromkeys(
        ["max_tokens", "n", "stop", "stream", "stream_options", "temperature", "top_p", "seed"]
    )
    body = {"model": None, "messages": HELLO, **nulls}
    answer = client.post("/chat/completions", body=body, cast_to=object)
    assert answer["choices"][0]["message"]["content"] == "Once upon a time"  # type: ignore[index]
