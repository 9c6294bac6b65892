"""OpenAI's stream of a completion as TGI's stream of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.errors import UpstreamBrokenError

from ...answers import Shape
from ...json_text import written
from ..streams import EventTranslator
from .reply import finish_word, token, tokens_of
from .request import Asked


class CompletionToTgi(EventTranslator):
    """One token event for each token; the last carries the whole text and, where asked for, the details.

    The last event waits for the engine's token counts, which come after its last piece of text.
    """

    def __init__(self, request: Asked, request_id: str) -> None:
        super().__init__(Shape.TGI, request_id)
        self._request = request
        self._texts: list[str] = []
        self._index = 0
        self._last: dict[str, Any] | None = None
        self._reason = ""

    def message(self, message: dict[str, Any]) -> bytes:
        """See ``EventTranslator.message``."""
        choices = message.get("choices")
        if not isinstance(choices, list) or not choices:
            # the counts, after the last piece
            self.note_usage(message)
            if self._last is not None and isinstance(message.get("usage"), dict):
                self.finished = True
                return self.closing()
            return b""
        choice = choices[0]
        if not isinstance(choice, dict) or self._last is not None:
            return b""
        out = self._piece(choice)
        self.note_usage(message)
        return out

    def closing(self) -> bytes:
        """See ``EventTranslator.closing``."""
        if self._last is None:
            raise UpstreamBrokenError("its stream stopped before its end")
        details: dict[str, Any] | None = None
        if self._request.details:
            details = {
                "finish_reason": self._reason,
                "generated_tokens": self.completion_tokens or 0,
                "seed": self._request.seed,
                "input_length": self.prompt_tokens or 0,
            }
        whole = self._request.text("".join(self._texts))
        return _event({**self._last, "generated_text": whole, "details": details})

    def _piece(self, choice: Mapping[str, Any]) -> bytes:
        text = choice.get("text")
        text = text if isinstance(text, str) else ""
        ids = choice.get("prompt_token_ids")
        if isinstance(ids, list):
            self.prompt_tokens = len(ids)
        tokens, top = tokens_of(choice, text, self._request.top_n_tokens)
        self.completion_tokens = (self.completion_tokens or 0) + len(tokens)
        self._texts.append(text)
        ended = choice.get("finish_reason") is not None
        if ended:
            self._reason = finish_word(choice)
            if not tokens:
                # the engine tells its end in a piece of its own
                tokens = [token(0, "", special=True)]
            elif self._reason == "eos_token" and not tokens[-1]["text"]:
                tokens[-1]["special"] = True
        out = []
        for place, one in enumerate(tokens):
            self._index += 1
            event: dict[str, Any] = {"index": self._index, "token": one}
            if self._request.top_n_tokens:
                event["top_tokens"] = top[place] if place < len(top) else []
            event |= {"generated_text": None, "details": None}
            if ended and place == len(tokens) - 1:
                self._last = event
            else:
                out.append(_event(event))
        return b"".join(out)


def _event(message: dict[str, Any]) -> bytes:
    # without the space that others write, as TGI's router does
    return b"data:" + written(message) + b"\n\n"
