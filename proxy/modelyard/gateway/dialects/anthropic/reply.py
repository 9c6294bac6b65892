"""A chat's answer as Anthropic's API gives it: a message, or the events of one."""

from __future__ import annotations

from typing import Any

from modelyard.errors import UpstreamBrokenError, UpstreamError

from ...answers import Shape
from ...json_text import read, written
from ..streams import GIVEN_UP, EventTranslator

_REASONS = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "stop_sequence": "stop_sequence",
    "content_filter": "refusal",
}


def message_id(request_id: str) -> str:
    """The id of the message that answers a request."""
    return f"msg_{request_id}"


def to_message(answer: dict[str, Any], name: str, request_id: str) -> dict[str, Any]:
    """The message for a chat completion; ``name`` is what the client calls the model.

    Raises ``UpstreamError`` when there is no answer in it.
    """
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    said = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(said, dict):
        raise UpstreamError("the engine answered without a message", code="upstream_garbled")
    content: list[dict[str, Any]] = []
    if said.get("content"):
        content.append({"type": "text", "text": str(said["content"])})
    calls = calls_of(said)
    reason = stop_reason(choice.get("finish_reason"))
    for call in calls:
        function = call.get("function") or {}
        content.append(
            {
                "type": "tool_use",
                "id": str(call.get("id") or ""),
                "name": str(function.get("name") or ""),
                "input": _input(function.get("arguments")),
            }
        )
    return {
        **_head(name, request_id),
        "content": content,
        "stop_reason": "tool_use" if calls and reason != "max_tokens" else reason,
        "usage": _usage(answer.get("usage")),
    }


def stop_reason(finish_reason: Any) -> str:
    """Anthropic's word for why a chat ended. Raises ``UpstreamBrokenError`` where the engine gave it up."""
    if finish_reason in GIVEN_UP:
        raise UpstreamBrokenError(f"it gave the generation up ({finish_reason})")
    return _REASONS.get(finish_reason, "end_turn")


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls of a message or delta; older TGIs give one alone."""
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _input(arguments: Any) -> dict[str, Any]:
    if isinstance(arguments, str):
        try:
            arguments = read(arguments.encode("utf-8", "surrogatepass"))
        except ValueError:
            arguments = {"arguments": arguments}
    return arguments if isinstance(arguments, dict) else {}


def _head(name: str, request_id: str) -> dict[str, Any]:
    return {
        "id": message_id(request_id),
        "type": "message",
        "role": "assistant",
        "model": name,
        "stop_sequence": None,
    }


def _usage(usage: Any) -> dict[str, int]:
    counts = usage if isinstance(usage, dict) else {}
    return {
        "input_tokens": int(counts.get("prompt_tokens") or 0),
        "output_tokens": int(counts.get("completion_tokens") or 0),
    }


class ChunksToMessage(EventTranslator):
    """The chunks of a streamed chat as the events of a message.

    https://docs.anthropic.com/en/docs/build-with-claude/streaming
    """

    def __init__(self, name: str, request_id: str) -> None:
        super().__init__(Shape.ANTHROPIC, request_id)
        self._name = name
        self._begun = False
        self._block = -1
        self._open = ""
        self._call: Any = None
        self._called = False
        self._reason: str | None = None

    def message(self, message: dict[str, Any]) -> bytes:
        """See ``EventTranslator.message``."""
        self.note_usage(message)
        out = b"" if self._begun else self._beginning()
        choices = message.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return out
        delta = choice.get("delta")
        if isinstance(delta, dict):
            out += self._delta(delta)
        if choice.get("finish_reason"):
            self._reason = stop_reason(choice["finish_reason"])
        return out

    def closing(self) -> bytes:
        """See ``EventTranslator.closing``."""
        if self._reason is None:
            raise UpstreamBrokenError("its stream stopped before its end")
        usage = {"input_tokens": self.prompt_tokens or 0, "output_tokens": self.completion_tokens or 0}
        reason = "tool_use" if self._called and self._reason != "max_tokens" else self._reason
        return (
            self._closed()
            + _event(
                "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
            )
            + _event("message_stop", {})
        )

    def _beginning(self) -> bytes:
        self._begun = True
        head = {**_head(self._name, self._request_id), "content": [], "stop_reason": None}
        return _event("message_start", {"message": {**head, "usage": _usage(None)}}) + _event("ping", {})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        out = b""
        text = delta.get("content")
        if isinstance(text, str) and text:
            if self._open != "text":
                out += self._opened("text", {"type": "text", "text": ""})
            out += self._said({"type": "text_delta", "text": text})
        for call in calls_of(delta):
            function = call.get("function") or {}
            place = call.get("index", 0)
            if self._open != "tool" or place != self._call:
                self._call, self._called = place, True
                name = str(function.get("name") or "")
                block = {"type": "tool_use", "id": str(call.get("id") or ""), "name": name, "input": {}}
                out += self._opened("tool", block)
            arguments = function.get("arguments")
            if arguments:
                told = arguments if isinstance(arguments, str) else written(arguments).decode()
                out += self._said({"type": "input_json_delta", "partial_json": told})
        return out

    def _opened(self, kind: str, block: dict[str, Any]) -> bytes:
        closed = self._closed()
        self._block += 1
        self._open = kind
        return closed + _event("content_block_start", {"index": self._block, "content_block": block})

    def _said(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", {"index": self._block, "delta": delta})

    def _closed(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return _event("content_block_stop", {"index": self._block})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + written({"type": name, **data}) + b"\n\n"
