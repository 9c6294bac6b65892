"""One streamed chat completion over HTTP, timed as a client sees it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from modelyard.errors import did_you_mean

# Who answered, as the proxy or else the echo engine says it.
REPLICA_HEADERS = ("x-modelyard-replica", "x-echo-instance")
_CONNECT_S = 5.0

Message = Mapping[str, str]


class ChatError(Exception):
    """Why there is no answer, in a sentence that says what to do; ``partial`` is what had arrived."""

    def __init__(self, message: str, partial: str = "") -> None:
        super().__init__(message)
        self.partial = partial


@dataclass(slots=True)
class Answer:
    """One answer, growing while it arrives.

    ``ttft_s``: seconds from the request to the first text. ``tokens_per_s``: tokens after the first over the
    time they took; None for answers too short to tell. ``usage`` is the server's own count.
    """

    model: str
    text: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    replica: str | None = None
    ttft_s: float | None = None
    tokens_per_s: float | None = None
    _pieces: int = field(default=0, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The answer for programs."""
        return {
            "model": self.model,
            "text": self.text,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
            "ttft_s": None if self.ttft_s is None else round(self.ttft_s, 4),
            "tokens_per_s": None if self.tokens_per_s is None else round(self.tokens_per_s, 2),
            "replica": self.replica,
        }

    def timing(self) -> str:
        """The line under an answer."""
        told = [] if self.ttft_s is None else [f"TTFT {self.ttft_s * 1000:.0f} ms"]
        told += [] if self.tokens_per_s is None else [f"{self.tokens_per_s:.1f} tokens/s"]
        told += [f"{self.tokens} token{'' if self.tokens == 1 else 's'}"]
        told += [f"finish {self.finish_reason}"] if self.finish_reason not in (None, "stop") else []
        told += [f"replica {self.replica}"] if self.replica else []
        return " · ".join(told)

    @property
    def tokens(self) -> int:
        """Generated tokens: the server's count, or the number of pieces where it gives none."""
        counted = (self.usage or {}).get("completion_tokens")
        return counted if isinstance(counted, int) else self._pieces

    def take(self, chunk: Mapping[str, Any]) -> str:
        """Add one chunk; gives the new text in it."""
        self.usage = chunk.get("usage") or self.usage
        self.model = chunk.get("model") or self.model
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return ""
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        # A server that does not stream answers with a message instead of deltas.
        told = choice.get("delta") or choice.get("message")
        text = told.get("content") if isinstance(told, dict) else None
        if not isinstance(text, str):
            return ""
        self.text += text
        self._pieces += bool(text)
        return text


class ChatClient:
    """Talks to one OpenAI-shaped address. ``clock`` is monotonic seconds."""

    def __init__(self, session: aiohttp.ClientSession, url: str, clock: Callable[[], float]) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._clock = clock

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """A session without a limit on how long an answer may take, only on connecting."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        return aiohttp.ClientSession(timeout=timeout, headers={"User-Agent": "modelyard-chat"})

    async def ask(
        self,
        model: str,
        messages: Sequence[Message],
        options: Mapping[str, Any],
        show: Callable[[str], None],
    ) -> Answer:
        """Stream one answer, telling ``show`` each piece; ChatError when there is none, or only a part.

        Cancelling it closes the connection, which stops the generation.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **options,
        }
        answer = Answer(model)
        try:
            begun = self._clock()
            async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as response:
                if response.status != 200:
                    raise await self._refusal(response, model)
                answer.replica = next(
                    (response.headers[name] for name in REPLICA_HEADERS if name in response.headers), None
                )
                first = None
                async for chunk in _chunks(response):
                    if chunk.get("error"):
                        raise ChatError(_sentence(chunk["error"]), answer.text)
                    text = answer.take(chunk)
                    if text:
                        now = self._clock()
                        first = now if first is None else first
                        answer.ttft_s = first - begun
                        if now > first and answer.tokens > 1:
                            answer.tokens_per_s = (answer.tokens - 1) / (now - first)
                        show(text)
        except aiohttp.ClientConnectorError as exc:
            raise ChatError(self._nobody(exc)) from exc
        # UnicodeError: a host's name that cannot be one
        except (aiohttp.ClientError, TimeoutError, UnicodeError) as exc:
            if answer.text:
                raise ChatError(
                    "The answer broke off: the connection was lost. Ask again.", answer.text
                ) from exc
            raise ChatError(
                f"{self._url} gave no usable answer ({exc or type(exc).__name__}). Ask again."
            ) from exc
        if answer.finish_reason is None:
            raise ChatError("The answer broke off before its end. Ask again.", answer.text)
        return answer

    async def models(self) -> list[str]:
        """The ids that the server lists; empty when it does not tell."""
        try:
            async with self._session.get(f"{self._url}/v1/models") as response:
                listed = (await response.json(content_type=None)).get("data")
        except (aiohttp.ClientError, TimeoutError, ValueError, AttributeError):
            return []
        return [str(item["id"]) for item in listed or [] if isinstance(item, dict) and "id" in item]

    async def _refusal(self, response: aiohttp.ClientResponse, model: str) -> ChatError:
        said = _sentence(_object(await response.read()).get("error") or response.reason)
        if response.status == 404:
            known = await self.models()
            if known and model not in known:
                hint = did_you_mean(model, known)
                return ChatError(
                    f"There is no model {model!r}{hint}{'' if hint else '.'} Served here: {', '.join(known)}."
                )
        return ChatError(f"The answer was refused with status {response.status}: {said}")

    def _nobody(self, exc: aiohttp.ClientConnectorError) -> str:
        number = exc.os_error.errno
        why = os.strerror(number) if number and number > 0 else str(exc.os_error)
        return (
            f"Nothing answers at {self._url} ({why}). Start the proxy with `make up` or `modelyard serve`, "
            "or name its address with --url."
        )


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects of an event stream, up to ``[DONE]``; or the one object of a plain answer."""
    if response.content_type != "text/event-stream":
        yield _object(await response.read())
        return
    pending = b""
    async for data in response.content.iter_any():
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            event = line[5:].strip()
            if event == b"[DONE]":
                return
            yield _object(event)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _sentence(error: Any) -> str:
    """The message in an error object, or whatever stands in its place."""
    if isinstance(error, Mapping):
        error = error.get("message") or error.get("error") or dict(error)
    return str(error or "no reason was given")
