"""Errors that an engine reports inside a stream that began with status 200."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelyard.errors import ModelyardError, UpstreamBusyError, UpstreamError

from .events import EventScanner
from .json_text import read

_WORDS_LIMIT = 500
# a first event that is longer is no error
_LONGEST_ERROR = 16 * 1024


def error_of(message: Mapping[str, Any]) -> ModelyardError | None:
    """The error that one event's object reports, ``None`` when it reports none.

    Known are TGI's ``{"error", "error_type"}`` and OpenAI's ``{"error": {"message", "code"}}``. What the
    engine blames on the client is an error that no other replica would answer differently; everything else is
    an ``UpstreamError``.
    """
    said = message.get("error")
    if said is None:
        # vLLM before 0.10 wrote the error without anything around it
        return _openai(message) if message.get("object") == "error" else None
    if isinstance(said, dict):
        return _openai(said)
    words = _words(said)
    kind = message.get("error_type")
    if kind == "overloaded":
        return UpstreamBusyError(f"it is overloaded: {words}", retry_after_s=1)
    if kind == "validation":
        return _refused(words, 422)
    return UpstreamError(f"it failed: {words}", code="upstream_failed")


def may_become_error(first: bytes | bytearray) -> bool:
    """Whether ``first``, all that has come of a stream so far, ends inside its first event, so that nobody knows
    yet whether it reports a failure. A comment counts as an event: it must not wait.
    """
    return len(first) < _LONGEST_ERROR and b"\n\n" not in first and b"\n\r\n" not in first


def in_band_error(first: bytes) -> UpstreamError | None:
    """The failure that the first event of a stream reports, for which another replica may be tried.

    ``first`` is what has come of the stream so far; ``None`` also where its first event is not complete: see
    ``may_become_error``.
    """
    if b'"error"' not in first:
        return None
    try:
        event = next(EventScanner().feed(first), None)
        message = read(event.data) if event is not None else None
    except (UpstreamError, ValueError):
        return None
    error = error_of(message) if isinstance(message, dict) else None
    return error if isinstance(error, UpstreamError) else None


def _openai(said: Mapping[str, Any]) -> ModelyardError:
    words = _words(said.get("message"))
    code = said.get("code")
    # OpenAI's own codes are words
    blamed = said.get("type") in ("invalid_request_error", "BadRequestError")
    status = code if isinstance(code, int) else 400 if blamed else 500
    if status in (429, 503) or said.get("type") in ("overloaded", "overloaded_error"):
        return UpstreamBusyError(f"it is overloaded: {words}", retry_after_s=1)
    if 400 <= status < 500:
        return _refused(words, status)
    return UpstreamError(f"it failed: {words}", code="upstream_failed")


def _refused(words: str, status: int) -> ModelyardError:
    return ModelyardError(f"the engine refused: {words}", status=status, code="upstream_refused")


def _words(said: object) -> str:
    return str(said)[:_WORDS_LIMIT] if said else "it does not say why"
