"""The "model": deterministic text from a prompt. Pure functions; no clock, no randomness, no I/O.

A *token* is a run of at most 16 characters together with the white space before it, so joining the tokens of
a text gives the text back. Real tokenizers behave alike in what matters to clients: tokens carry their own
leading space, and a long word costs several.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

_TOKEN = re.compile(r"\s*\S{1,16}|\s+")
_VOCABULARY = 50_000
_SILENCE = ("echo",)  # what an empty prompt is answered with


class Finish(StrEnum):
    """Why a generation ended. Each dialect has its own words for these."""

    END = "end"  # the prompt has been said once and no length was asked for
    LENGTH = "length"
    STOP = "stop"  # a stop sequence appeared


@dataclass(frozen=True, slots=True)
class Params:
    """What shapes one generation.

    ``max_tokens``: exactly this many tokens, the prompt's words again and again; None: the prompt once.
    ``include_stop``: the text ends with the stop sequence (TGI) instead of before it (OpenAI).
    ``rotate``: begin at this word of the prompt, so that several choices for one prompt differ.
    """

    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    include_stop: bool = False
    rotate: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """One generated token.

    ``token`` is the token's own text. ``text`` is what may be shown now: it lags behind while the last
    characters might still turn out to begin a stop sequence. ``finish`` is set on the last piece only.
    """

    index: int
    token: str
    text: str
    finish: Finish | None


def tokenize(text: str) -> list[str]:
    """Cut a text into tokens; joined again they are the text."""
    return _TOKEN.findall(text)


def token_id(token: str) -> int:
    """A stable number for a token, 0 <= id < 50000."""
    return zlib.crc32(token.encode("utf-8", "surrogatepass")) % _VOCABULARY


def generate(prompt: str, params: Params) -> Iterator[Piece]:
    """Yield the answer to ``prompt`` token by token; the last piece says why it ended."""
    words: Sequence[str] = tokenize(prompt.strip()) or _SILENCE
    length = len(words) if params.max_tokens is None else params.max_tokens
    whole = Finish.END if params.max_tokens is None else Finish.LENGTH
    pending = ""
    for index in range(length):
        token = _word(words, index, params.rotate)
        before = len(pending)
        pending += token
        end = _stop_end(pending, params)
        if end is not None:
            shown, cut = end
            yield Piece(index, pending[before:cut], pending[:shown], Finish.STOP)
            return
        if index == length - 1:
            yield Piece(index, token, pending, whole)
            return
        held = _held(pending, params.stops)
        yield Piece(index, token, pending[: len(pending) - held], None)
        pending = pending[len(pending) - held :]


def _word(words: Sequence[str], index: int, rotate: int) -> str:
    """The token at a position of the endless, rotated cycle over the prompt's words."""
    place = (index + rotate) % len(words)
    word = words[place]
    if index == 0:
        return word.lstrip()
    if place == 0:
        return " " + word
    return word


def _stop_end(pending: str, params: Params) -> tuple[int, int] | None:
    """(length of text to show, where the last token is cut) at the earliest stop sequence, or None."""
    found = [(start, stop) for stop in params.stops if (start := pending.find(stop)) >= 0]
    if not found:
        return None
    start, stop = min(found)
    cut = start + len(stop)
    return (cut if params.include_stop else start), cut


def _held(pending: str, stops: tuple[str, ...]) -> int:
    """How many of the last characters may be the beginning of a stop sequence."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(pending)), longest, -1):
            if pending.endswith(stop[:size]):
                longest = size
                break
    return longest
