"""Anthropic's routes, for every engine."""

from __future__ import annotations

from functools import cache
from typing import Any

from aiohttp import web

from modelyard.errors import UpstreamError

from ...context import Gateway
from ...forward import Call
from ...keys import REQUEST_ID_KEY, SHAPE
from ...relay import relay
from ...replicas import Replica
from ..bodies import read_object
from ..limits import limited
from ..passing import model_in, not_served
from ..streams import reading
from ..translated import relay_translated
from ..wishes import answer_object, dumps, make_wish, told_by
from .reply import ChunksToMessage, to_message
from .request import asked, to_chat

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
_CHAT = "/v1/chat/completions"


async def messages(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """``POST /v1/messages``: as it is to an engine that serves it, else as a chat."""
    body, raw = await read_object(request, gateway.settings.body_timeout_s)
    model = model_in(gateway, body, MESSAGES)
    name, stream, identity = str(body["model"]), body.get("stream") is True, request[REQUEST_ID_KEY]
    body, raw = limited(model, MESSAGES, body, raw)

    @cache
    def named(served_name: str) -> bytes:
        return raw if name == served_name else dumps({**body, "model": served_name})

    @cache
    def chat(served_name: str) -> bytes:
        return dumps({"model": served_name, **to_chat(body)})

    def plan(replica: Replica) -> Call:
        served = replica.endpoint.served_name
        if replica.engine.serves(model.task, MESSAGES):
            return Call(MESSAGES, named(served))
        if not replica.engine.serves(model.task, _CHAT):
            raise not_served(model, replica, MESSAGES)
        return Call(_CHAT, chat(served))

    translating = any(
        not replica.engine.serves(model.task, MESSAGES) for replica in gateway.pool.of_model(model.id)
    )
    wish = make_wish(gateway, request, model, body, plan, buffered=translating and not stream)
    async with gateway.forwarder.open(wish) as opened:
        if opened.replica.engine.serves(model.task, MESSAGES):
            return await relay(request, opened, request[SHAPE], identity)
        if stream:
            return await relay_translated(request, opened, ChunksToMessage(name, identity))
        answer = await answer_object(opened)
        with reading():
            message = to_message(answer, name, identity)
        return web.json_response(message, headers=told_by(opened))


async def count_tokens(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """``POST /v1/messages/count_tokens`` -> ``{"input_tokens"}``."""
    body, raw = await read_object(request, gateway.settings.body_timeout_s)
    model = model_in(gateway, body, COUNT)
    body, raw = limited(model, COUNT, body, raw)

    def plan(replica: Replica) -> Call:
        served: str = replica.endpoint.served_name
        if replica.engine.serves(model.task, COUNT):
            return Call(COUNT, raw if body["model"] == served else dumps({**body, "model": served}))
        if not replica.engine.speaks("tgi"):
            raise not_served(model, replica, COUNT)
        return Call("/chat_tokenize", dumps({"model": served, **asked(body)}))

    async with gateway.forwarder.open(
        make_wish(gateway, request, model, body, plan, buffered=True)
    ) as opened:
        if opened.replica.engine.serves(model.task, COUNT):
            return await relay(request, opened, request[SHAPE], request[REQUEST_ID_KEY])
        tokens: Any = (await answer_object(opened)).get("tokenize_response")
        if not isinstance(tokens, list):
            raise UpstreamError(f"{opened.replica.id} did not tell the tokens", code="upstream_garbled")
        return web.json_response({"input_tokens": len(tokens)}, headers=told_by(opened))
