"""LangChain's OpenAI integration, on engines of both kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

ASKED = [SystemMessage("Be brief."), HumanMessage("one two three")]


@pytest.fixture
def common(proxy_url: str) -> dict[str, Any]:
    return {"base_url": f"{proxy_url}/v1", "api_key": "a-key", "max_retries": 0, "temperature": 0}


def test_chat(common: dict[str, Any], model: str, echoes: bool) -> None:
    answer = ChatOpenAI(model=model, max_tokens=5, **common).invoke(ASKED)
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 5
    assert answer.response_metadata["finish_reason"] == "length"
    if echoes:
        assert answer.content == "one two three one two"


def test_streamed_chat(common: dict[str, Any], model: str, echoes: bool) -> None:
    chat = ChatOpenAI(model=model, max_tokens=5, stream_usage=True, **common)
    whole = AIMessageChunk(content="")
    for chunk in chat.stream(ASKED):
        assert isinstance(chunk, AIMessageChunk)
        whole += chunk
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] == 5
    assert not echoes or whole.content == "one two three one two"


def test_completion(common: dict[str, Any], model: str, echoes: bool) -> None:
    said = OpenAI(model=model, max_tokens=4, **common).invoke("one two three")
    assert said
    assert not echoes or said == "one two three one"


def test_embeddings(common: dict[str, Any], model_named: Callable[[str], str]) -> None:
    # token numbers of OpenAI's own vocabulary would mean nothing to another model
    del common["temperature"]
    embed = OpenAIEmbeddings(model=model_named("embedder"), check_embedding_ctx_length=False, **common)
    one, same, other = embed.embed_documents(["a cat", "a cat", "9 dogs"])
    assert one == same != other
    assert embed.embed_query("a cat") == one
