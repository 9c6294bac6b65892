"""Chat as TGI's own clients send it and read it, whatever engine answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.errors import UpstreamBrokenError

from ...answers import Shape
from ...events import event_bytes
from ...json_text import written
from ..streams import EventTranslator

_FINGERPRINT = "modelyard"
# the name that `text-generation` always sends
TEXT_GENERATION = "tgi"


def without_nulls(body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` without the keys that stand for nothing: vLLM refuses ``name: null`` in a message.

    Nulls inside a tool's parameters stay, for they belong to its JSON schema.
    """
    stripped = {name: value for name, value in body.items() if value is not None}
    for name in ("messages", "tools"):
        listed = stripped.get(name)
        if isinstance(listed, list):
            stripped[name] = [_without(item) for item in listed]
    return stripped


def _without(item: object) -> object:
    return {k: v for k, v in item.items() if v is not None} if isinstance(item, dict) else item


def for_reader(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A plain answer with the keys that TGI's clients insist on."""
    made = {**answer, "system_fingerprint": answer.get("system_fingerprint") or _FINGERPRINT}
    made.setdefault("usage", None)
    choices = answer.get("choices")
    if isinstance(choices, list):
        made["choices"] = [
            {"logprobs": None, **choice} if isinstance(choice, dict) else choice for choice in choices
        ]
    return made


class ForReader(EventTranslator):
    """An OpenAI stream for the clients of TGI: no ``[DONE]``, and in each chunk of a chat a fingerprint, the
    role and ``tool_calls``. ``single_tool`` gives the latter as ``text-generation`` wants it: one call, with
    its id and type in every chunk.
    """

    def __init__(self, request_id: str, *, single_tool: bool, shape: Shape) -> None:
        super().__init__(shape, request_id)
        self._single_tool = single_tool
        self._ended = False
        self._tools: dict[object, dict[str, Any]] = {}

    def message(self, message: dict[str, Any]) -> bytes:
        """See ``EventTranslator.message``."""
        self.note_usage(message)
        choices = message.get("choices")
        listed = choices if isinstance(choices, list) else []
        made = {**message, "system_fingerprint": message.get("system_fingerprint") or _FINGERPRINT}
        made["choices"] = [self._choice(item) if isinstance(item, dict) else item for item in listed]
        return event_bytes(written(made))

    def closing(self) -> bytes:
        """See ``EventTranslator.closing``."""
        if not self._ended:
            raise UpstreamBrokenError("its stream stopped before its end")
        return b""

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        if choice.get("finish_reason") is not None:
            self._ended = True
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return choice
        calls = delta.get("tool_calls") or None
        if self._single_tool and isinstance(calls, list):
            calls = self._one(calls[0])
        return {**choice, "delta": {**delta, "role": delta.get("role") or "assistant", "tool_calls": calls}}

    def _one(self, call: object) -> dict[str, Any] | None:
        if not isinstance(call, dict):
            return None
        said = call.get("function")
        said = said if isinstance(said, dict) else {}
        known = self._tools.setdefault(call.get("index"), {"id": "", "type": "function"})
        known |= {name: call[name] for name in ("id", "type") if call.get(name)}
        function = {"name": said.get("name"), "arguments": said.get("arguments") or ""}
        return {"index": call.get("index") or 0, **known, "function": function}
