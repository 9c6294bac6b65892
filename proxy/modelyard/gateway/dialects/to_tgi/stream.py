"""TGI's stream of tokens as OpenAI's stream of chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.errors import UpstreamError

from ...answers import Shape
from ...events import event_bytes
from ...json_text import written
from ..streams import DONE, EventTranslator
from .reply import Head, finish_reason, logprobs_of, usage_of, without_stop
from .request import Wanted


class TgiToChunks(EventTranslator):
    """Chunks of ``/v1/completions``, or of ``/v1/chat/completions`` with the role in the first one.

    TGI shows a stop sequence token by token; what may be the beginning of one is held back until it is
    known.
    """

    def __init__(self, wanted: Wanted, head: Head, request_id: str) -> None:
        super().__init__(Shape.OPENAI, request_id)
        self._wanted = wanted
        self._head = head.of(wanted, chunk=True)
        if wanted.include_usage:
            # every chunk has the key, null until the last one
            self._head["usage"] = None
        self._held = ""
        # how much text the tokens before this one have
        self._offset = 0
        self._begun = False

    def message(self, message: dict[str, Any]) -> bytes:
        """See ``EventTranslator.message``."""
        token = message.get("token")
        if not isinstance(token, dict) or not isinstance(token.get("text"), str):
            raise UpstreamError("its stream holds something unexpected", code="upstream_garbled")
        special = token.get("special") is True
        self._held += "" if special else token["text"]
        self.completion_tokens = (self.completion_tokens or 0) + 1
        top = message.get("top_tokens")
        logprobs = logprobs_of(
            [token], [top if isinstance(top, list) else []], self._wanted, begin=self._offset
        )
        self._offset += len(token["text"])
        out = b"" if self._begun else self._opening()
        self._begun = True
        if not isinstance(message.get("generated_text"), str):
            keep = held_length(self._held, self._wanted.stops)
            shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            return out + (self._chunk(shown, logprobs, None) if shown or logprobs else b"")
        return out + self._last(message, logprobs)

    def _last(self, message: Mapping[str, Any], logprobs: dict[str, Any] | None) -> bytes:
        details = message.get("details")
        details = details if isinstance(details, dict) else {}
        word = details.get("finish_reason")
        if isinstance(details.get("generated_tokens"), int):
            self.completion_tokens = details["generated_tokens"]
        if isinstance(details.get("input_length"), int):
            self.prompt_tokens = details["input_length"]
        text = without_stop(self._held, word, self._wanted.stops)
        out = self._chunk(text, logprobs, finish_reason(word))
        if self._wanted.include_usage:
            counts = usage_of(self.prompt_tokens, self.completion_tokens)
            out += event_bytes(written({**self._head, "choices": [], "usage": counts}))
        self.finished = True
        return out + event_bytes(DONE)

    def _opening(self) -> bytes:
        if not self._wanted.chat:
            return b""
        return self._event({"delta": {"role": "assistant", "content": ""}}, None, None)

    def _chunk(self, text: str, logprobs: dict[str, Any] | None, reason: str | None) -> bytes:
        said = {"delta": {"content": text}} if self._wanted.chat else {"text": text}
        return self._event(said, logprobs, reason)

    def _event(self, said: Mapping[str, Any], logprobs: dict[str, Any] | None, reason: str | None) -> bytes:
        choice = {"index": 0, **said, "logprobs": logprobs, "finish_reason": reason}
        return event_bytes(written({**self._head, "choices": [choice]}))


def held_length(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a stop sequence."""
    most = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), most, -1):
            if text.endswith(stop[:size]):
                most = size
                break
    return most
