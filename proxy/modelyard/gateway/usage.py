"""What an answer cost, read off its bytes as they pass: no I/O, nothing changed, a small tail kept.

Engines tell token counts at the end of their answers: ``usage`` (OpenAI's and Anthropic's APIs) or
``details`` (TGI), in the JSON object itself or in the last events of a stream; TGI also in headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

# Enough for the usage object and what engines write after it; the rest of an answer is never held.
_TAIL = 1024
_TRIM_AT = 2 * _TAIL
_EVENT = b"\ndata:"
_SEAM = len(_EVENT) - 1
# Inside a JSON string each quote is escaped, so these cannot be text that a model wrote.
_USAGE = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*(\d{1,12})[^{}"]*(?:"total_tokens"[^{}"]*)?'
    rb'"completion_tokens"\s*:\s*(\d{1,12})\s*[,}]'
)
_PROMPT = re.compile(rb'"(?:prompt_tokens|input_tokens)"\s*:\s*(\d{1,12})')
_COMPLETION = re.compile(rb'"(?:completion_tokens|output_tokens)"\s*:\s*(\d{1,12})')
_GENERATED = re.compile(rb'"generated_tokens"\s*:\s*(\d{1,12})')
_INPUT_LENGTH = re.compile(rb'"input_length"\s*:\s*(\d{1,12})')
_DONE = re.compile(rb"\ndata: ?\[DONE\]\s*\Z")


class Usage(NamedTuple):
    """Tokens of one answer; ``None`` where nobody said. ``counted``: ``completion_tokens`` is the number of
    events of a stream whose engine told no usage.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    counted: bool = False


class AnswerMeter:
    """Fed every byte of one answer's body, in pieces of any size, it knows how much was said.

    ``streamed`` is whether the answer is a stream of server-sent events; its ``headers`` are asked for what
    its body does not tell. ``events`` and ``size`` (bytes) may be read at any time.
    """

    __slots__ = ("_headers", "_tail", "events", "size", "streamed")

    def __init__(self, *, streamed: bool, headers: Mapping[str, str] | None = None) -> None:
        self.streamed = streamed
        self._headers = headers
        self.events = 0
        self.size = 0
        # the body begins a line, and is never shorter than the part of a mark that a border may cut off
        self._tail: bytes | bytearray = bytearray(b"\n" * _SEAM) if streamed else b""

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        self.size += len(data)
        tail = self._tail
        if not self.streamed:
            # mostly the only one, and whole
            whole = tail + data if tail else data
            self._tail = whole if len(whole) <= _TRIM_AT else whole[-_TAIL:]
            return
        seam = len(tail) - _SEAM
        tail += data
        # what is looked at again is shorter than the mark: one on a border is counted, and none twice
        self.events += tail.count(_EVENT, seam)
        self._tail = tail if len(tail) <= _TRIM_AT else tail[-_TAIL:]

    @property
    def between_events(self) -> bool:
        """Whether what has come ends with a whole event."""
        return self._tail.endswith((b"\n\n", b"\r\n\r\n"))

    def result(self) -> Usage:
        """What is known now."""
        tail, headers = self._tail, self._headers
        prompt = completion = None
        at = tail.rfind(b'"usage"')
        if at >= 0:
            if (usual := _USAGE.match(tail, at)) is not None:
                return Usage(int(usual[1]), int(usual[2]))
            if (found := _PROMPT.search(tail, at)) is not None:
                prompt = int(found[1])
            if (found := _COMPLETION.search(tail, at)) is not None:
                completion = int(found[1])
        if prompt is None and completion is None:
            at = tail.rfind(b'"details"')
            if at >= 0:
                prompt = _number(_INPUT_LENGTH.search(tail, at))
                completion = _number(_GENERATED.search(tail, at))
        if headers is not None:
            if prompt is None:
                prompt = _header(headers, "x-prompt-tokens")
            if completion is None:
                completion = _header(headers, "x-generated-tokens")
        if completion is None and self.streamed:
            done = _DONE.search(tail) is not None
            return Usage(prompt, max(self.events - done, 0), counted=True)
        return Usage(prompt, completion)


def _number(found: re.Match[bytes] | None) -> int | None:
    return None if found is None else int(found[1])


def _header(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else None
