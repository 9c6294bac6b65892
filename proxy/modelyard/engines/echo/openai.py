"""OpenAI's routes: /v1/models, /v1/chat/completions, /v1/completions, plain and streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from aiohttp import web

from modelyard.engines.echo.bodies import BadBody, read_object
from modelyard.engines.echo.model import Finish, Piece, generate
from modelyard.engines.echo.openai_request import OpenAIError, OpenAIRequest, chat_request, completion_request
from modelyard.engines.echo.runtime import EchoSettings, Runtime
from modelyard.engines.echo.sse import EventStream

_REASONS = {Finish.END: "stop", Finish.STOP: "stop", Finish.LENGTH: "length"}
_DONE = b"[DONE]"

# One step of a generation: the next token of every choice that has not ended, as (choice, piece).
Step = list[tuple[int, Piece]]
Parse = Callable[[dict[str, Any], EchoSettings], OpenAIRequest]


def steps(request: OpenAIRequest) -> Iterator[Step]:
    """Generate all choices side by side, as an engine that batches does."""
    running: dict[int, Iterator[Piece]] = {}
    for place, text in enumerate(request.echoed):
        for choice in range(request.n):
            params = replace(request.params, rotate=choice)
            running[place * request.n + choice] = generate(text, params)
    while running:
        step: Step = []
        for choice, pieces in list(running.items()):
            piece = next(pieces)
            step.append((choice, piece))
            if piece.finish is not None:
                del running[choice]
        yield step


class Shape:
    """The parts in which the two kinds of completion differ."""

    prefix: str
    object_whole: str
    object_chunk: str

    def whole(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """One choice of a plain answer."""
        raise NotImplementedError

    def chunk(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """One choice of a streamed answer."""
        raise NotImplementedError

    def opening(self, index: int) -> dict[str, Any] | None:
        """A choice that is streamed before the first token, if there is one."""
        raise NotImplementedError


class ChatShape(Shape):
    """/v1/chat/completions."""

    prefix, object_whole, object_chunk = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def whole(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """The assistant's message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    def chunk(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """A delta."""
        return {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}

    def opening(self, index: int) -> dict[str, Any] | None:
        """The role."""
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}


class TextShape(Shape):
    """/v1/completions."""

    prefix, object_whole, object_chunk = "cmpl-", "text_completion", "text_completion"

    def whole(self, index: int, text: str, reason: str) -> dict[str, Any]:
        """The text."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    def chunk(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        """The next part of the text."""
        return {"index": index, "text": text, "logprobs": None, "finish_reason": reason}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Nothing: there is no role."""
        return None


class OpenAIRoutes:
    """The handlers. ``ids`` gives a fresh response id without prefix, ``now`` Unix seconds."""

    def __init__(self, runtime: Runtime, ids: Callable[[], str], now: Callable[[], float]) -> None:
        self._runtime = runtime
        self._ids = ids
        self._now = now

    def routes(self) -> list[web.RouteDef]:
        """The route table of this dialect."""
        return [
            web.get("/v1/models", self.models),
            web.get("/v1/models/{name:.+}", self.model),
            web.post("/v1/chat/completions", self.chat),
            web.post("/v1/completions", self.completions),
        ]

    async def models(self, request: web.Request) -> web.Response:
        """Every served name."""
        names = self._runtime.settings.models
        return web.json_response({"object": "list", "data": [self._card(name) for name in names]})

    async def model(self, request: web.Request) -> web.Response:
        """One served name."""
        name = request.match_info["name"]
        if name not in self._runtime.settings.models:
            return error_response(
                OpenAIError(404, f"The model `{name}` does not exist here.", "model_not_found")
            )
        return web.json_response(self._card(name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """/v1/chat/completions."""
        return await self._answer(request, chat_request, ChatShape())

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """/v1/completions."""
        return await self._answer(request, completion_request, TextShape())

    def _card(self, name: str) -> dict[str, Any]:
        settings = self._runtime.settings
        return {
            "id": name,
            "object": "model",
            "created": settings.created,
            "owned_by": "modelyard",
            "root": settings.models[0],
            "parent": None,
            "max_model_len": settings.max_model_len,
        }

    async def _answer(self, http: web.Request, parse: Parse, shape: Shape) -> web.StreamResponse:
        try:
            request = parse(await read_object(http), self._runtime.settings)
        except BadBody as exc:
            return error_response(OpenAIError.of(exc))
        except OpenAIError as exc:
            return error_response(exc)
        head = {"id": shape.prefix + self._ids(), "created": int(self._now()), "model": request.model}
        async with self._runtime.place(wait=True):
            self._runtime.metrics.prompt_tokens.inc(request.prompt_tokens)
            if request.stream:
                return await self._stream(http, request, shape, {**head, "object": shape.object_chunk})
            return await self._plain(request, shape, {**head, "object": shape.object_whole})

    async def _plain(self, request: OpenAIRequest, shape: Shape, head: dict[str, Any]) -> web.Response:
        texts = _beginnings(request)
        reasons: dict[int, str] = {}
        generated = 0
        async for step in self._runtime.paced(steps(request)):
            generated += len(step)
            self._runtime.metrics.tokens.inc(len(step))
            for choice, piece in step:
                texts[choice].append(piece.text)
                if piece.finish is not None:
                    reasons[choice] = _REASONS[piece.finish]
        choices = [shape.whole(index, "".join(parts), reasons[index]) for index, parts in enumerate(texts)]
        return web.json_response({**head, "choices": choices, "usage": _usage(request, generated)})

    async def _stream(
        self, http: web.Request, request: OpenAIRequest, shape: Shape, head: dict[str, Any]
    ) -> web.StreamResponse:
        # With include_usage every chunk carries the key, null until the last one.
        extra: dict[str, Any] = {"usage": None} if request.include_usage else {}
        stream = EventStream(http, b"data: ")
        await stream.begin()
        beginnings = _beginnings(request)
        generated = 0
        async for step in self._runtime.paced(steps(request)):
            choices = []
            if generated == 0:
                openings = [shape.opening(choice) for choice, _ in step]
                choices = [opening for opening in openings if opening is not None]
                choices += [
                    shape.chunk(choice, text, None)
                    for choice, parts in enumerate(beginnings)
                    for text in parts
                ]
            generated += len(step)
            self._runtime.metrics.tokens.inc(len(step))
            for choice, piece in step:
                reason = None if piece.finish is None else _REASONS[piece.finish]
                choices.append(shape.chunk(choice, piece.text, reason))
            await stream.send(*({**head, "choices": [choice], **extra} for choice in choices))
        if request.include_usage:
            await stream.send({**head, "choices": [], "usage": _usage(request, generated)})
        await stream.send(_DONE)
        return await stream.end()


def error_response(error: OpenAIError) -> web.Response:
    """OpenAI's error object with its status."""
    return web.json_response(error.body(), status=error.status)


def _beginnings(request: OpenAIRequest) -> list[list[str]]:
    """For each choice what stands before the generated text: the prompt, or nothing."""
    return [[text] if request.prefix else [] for text in request.echoed for _ in range(request.n)]


def _usage(request: OpenAIRequest, generated: int) -> dict[str, int]:
    read = request.prompt_tokens
    return {"prompt_tokens": read, "completion_tokens": generated, "total_tokens": read + generated}
