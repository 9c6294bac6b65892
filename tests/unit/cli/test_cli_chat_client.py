"""What the chat client makes of servers that answer oddly."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.cli.chat_client import Answer, ChatClient, ChatError


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"choices": ["x"]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"message": None}]},
    ],
)
def test_a_chunk_of_any_shape_adds_no_text(chunk: dict[str, Any]) -> None:
    answer = Answer("m")
    assert answer.take(chunk) == ""
    assert (answer.text, answer.tokens) == ("", 0)


async def test_a_host_that_cannot_be_one_is_told() -> None:
    async with ChatClient.session() as session:
        client = ChatClient(session, "http://a..b", lambda: 0.0)
        with pytest.raises(ChatError, match=r"http://a\.\.b gave no usable answer"):
            await client.ask("m", [], {}, lambda _: None)
