"""Anthropic's messages and OpenAI's responses, as vLLM serves them beside its chats. Text only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from modelyard.engines.echo.bodies import BadBody, Fields, read_object
from modelyard.engines.echo.model import Finish, Params, generate, tokenize
from modelyard.engines.echo.openai_request import OpenAIError, chat_messages, templated
from modelyard.engines.echo.runtime import Runtime
from modelyard.engines.echo.sse import EventStream

_KEPT = 1000


class MessageRoutes:
    """The handlers. ``ids`` gives a fresh id without prefix, ``now`` Unix seconds."""

    def __init__(self, runtime: Runtime, ids: Callable[[], str], now: Callable[[], float]) -> None:
        self._runtime = runtime
        self._ids = ids
        self._now = now
        self._kept: dict[str, dict[str, Any]] = {}

    def routes(self) -> list[web.RouteDef]:
        """The route table."""
        return [
            web.post("/v1/messages", self.messages),
            web.post("/v1/messages/count_tokens", self.count_tokens),
            web.post("/v1/responses", self.respond),
            web.get("/v1/responses/{identity}", self.kept),
            web.post("/v1/responses/{identity}/cancel", self.kept),
        ]

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """The last message once, or its words up to ``max_tokens``."""
        try:
            fields = await self._fields(request)
            said = _anthropic(fields)
            most = fields.integer("max_tokens", 1)
            stops = fields.strings("stop_sequences", 16)
            if most is None:
                raise fields.bad("max_tokens", "is missing")
        except (BadBody, OpenAIError) as exc:
            return _anthropic_error(exc)
        read = len(tokenize(templated(said)))
        head = {
            "id": f"msg_{self._ids()}", "type": "message", "role": "assistant", "model": self._model,
            "stop_sequence": None,
        }  # fmt: skip
        usage = {"input_tokens": read, "output_tokens": 0}
        stream = _Named(request) if fields.flag("stream") else None
        async with self._runtime.place(wait=True):
            if stream:
                begun: dict[str, Any] = {**head, "content": [], "stop_reason": None, "usage": usage}
                await stream.send("message_start", message=begun)
                await stream.send("content_block_start", index=0, content_block={"type": "text", "text": ""})
            text, count, finish = "", 0, Finish.END
            async for piece in self._runtime.paced(generate(said[-1][1], Params(most, stops))):
                text, count, finish = text + piece.text, count + 1, piece.finish or finish
                self._runtime.metrics.tokens.inc()
                if stream:
                    delta = {"type": "text_delta", "text": piece.text}
                    await stream.send("content_block_delta", index=0, delta=delta)
        reason = {Finish.LENGTH: "max_tokens", Finish.STOP: "stop_sequence"}.get(finish, "end_turn")
        usage = {"input_tokens": read, "output_tokens": count}
        if not stream:
            content = [{"type": "text", "text": text}]
            return web.json_response({**head, "content": content, "stop_reason": reason, "usage": usage})
        await stream.send("content_block_stop", index=0)
        await stream.send("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)
        await stream.send("message_stop")
        return await stream.end()

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        """How many tokens the chat template makes of the messages."""
        try:
            said = _anthropic(await self._fields(request))
        except (BadBody, OpenAIError) as exc:
            return _anthropic_error(exc)
        return web.json_response({"input_tokens": len(tokenize(templated(said)))})

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """A response, kept for those who ask for it again."""
        try:
            fields = await self._fields(request)
            given = fields.raw("input")
            said = [("user", given)] if isinstance(given, str) else chat_messages(given)
            most = fields.integer("max_output_tokens", 1)
            previous = fields.text("previous_response_id")
            if previous is not None and previous not in self._kept:
                raise OpenAIError(404, f"Response `{previous}` is not kept here.", "not_found")
        except BadBody as exc:
            return _openai_error(OpenAIError.of(exc))
        except OpenAIError as exc:
            return _openai_error(exc)
        identity = f"resp_{self._ids()}"
        head: dict[str, Any] = {
            "id": identity, "created_at": int(self._now()), "model": self._model, "object": "response",
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "previous_response_id": previous,
            "temperature": 1.0, "top_p": 1.0, "error": None, "incomplete_details": None, "instructions": None,
            "metadata": None,
        }  # fmt: skip
        item = {"id": f"msg_{identity}", "type": "message", "role": "assistant"}
        stream = _Named(request) if fields.flag("stream") else None
        begun = {**head, "status": "in_progress", "output": [], "usage": None}
        async with self._runtime.place(wait=True):
            if stream:
                await stream.send("response.created", response=begun, sequence_number=0)
            text, count = "", 0
            async for piece in self._runtime.paced(generate(said[-1][1], Params(most))):
                text, count = text + piece.text, count + 1
                self._runtime.metrics.tokens.inc()
                if stream:
                    await stream.send(
                        "response.output_text.delta", delta=piece.text, item_id=item["id"], output_index=0,
                        content_index=0, logprobs=[], sequence_number=count,
                    )  # fmt: skip
        read = sum(len(tokenize(words)) for _, words in said)
        content: list[Any] = [{"type": "output_text", "text": text, "annotations": [], "logprobs": None}]
        usage = {
            "input_tokens": read, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": count, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": read + count,
        }  # fmt: skip
        whole = {
            **head,
            "status": "completed",
            "output": [{**item, "status": "completed", "content": content}],
            "usage": usage,
        }
        self._kept[identity] = whole
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        if not stream:
            return web.json_response(whole)
        await stream.send("response.completed", response=whole, sequence_number=count + 1)
        return await stream.end()

    async def kept(self, request: web.Request) -> web.StreamResponse:
        """A response made here."""
        found = self._kept.get(request.match_info["identity"])
        if found is None:
            return _openai_error(OpenAIError(404, "No such response is kept here.", "not_found"))
        return web.json_response(found)

    @property
    def _model(self) -> str:
        return self._runtime.settings.models[0]

    async def _fields(self, request: web.Request) -> Fields:
        fields = Fields(await read_object(request))
        name = fields.text("model")
        if name not in self._runtime.settings.models:
            raise OpenAIError(404, f"The model `{name}` does not exist here.", "model_not_found", "model")
        return fields


class _Named:
    """Events that say their name, begun with the first of them."""

    def __init__(self, request: web.Request) -> None:
        self._stream = EventStream(request, b"")
        self._begun = False

    async def send(self, name: str, **data: Any) -> None:
        if not self._begun:
            self._begun = True
            await self._stream.begin()
        told = json.dumps({"type": name, **data})
        await self._stream.send(f"event: {name}\ndata: {told}".encode())

    async def end(self) -> web.StreamResponse:
        return await self._stream.end()


def _anthropic(fields: Fields) -> list[tuple[str, str]]:
    """(role, text) of the system prompt and each message."""
    system: Any = fields.raw("system")
    messages: Any = fields.raw("messages")
    first = [{"role": "system", "content": system}] if system else []
    if not isinstance(messages, list) or not messages:
        raise fields.bad("messages", "must be a list of at least one message")
    return chat_messages([*first, *messages])


def _anthropic_error(error: BadBody | OpenAIError) -> web.Response:
    told = OpenAIError.of(error) if isinstance(error, BadBody) else error
    kind = "not_found_error" if told.status == 404 else "invalid_request_error"
    body: Mapping[str, Any] = {"type": "error", "error": {"type": kind, "message": told.message}}
    return web.json_response(body, status=told.status)


def _openai_error(error: OpenAIError) -> web.Response:
    return web.json_response(error.body(), status=error.status)
