"""``/tokenize`` as vLLM serves it, for every engine."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from modelyard.errors import InvalidFieldError, UpstreamError

from ..context import Gateway
from ..forward import Call
from ..keys import REQUEST_ID_KEY, SHAPE
from ..relay import relay
from ..replicas import Replica
from ..upstream import whole
from .limits import limited
from .passing import model_in, not_served
from .wishes import dumps, make_wish, read_answer, refusal, told_by

_PATH = "/tokenize"


async def tokenize(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``{"model", "prompt" or "messages"}`` -> ``{"count", "max_model_len", "tokens", "token_strs"}``; an
    engine that speaks TGI does not tell ``max_model_len``.
    """
    model = model_in(gateway, body, _PATH)
    body, raw = limited(model, _PATH, body, raw)

    def plan(replica: Replica) -> Call:
        served = replica.endpoint.served_name
        if replica.engine.serves(model.task, _PATH):
            return Call(_PATH, raw if body["model"] == served else dumps({**body, "model": served}))
        if not replica.engine.speaks("tgi"):
            raise not_served(model, replica, _PATH)
        if "messages" in body:
            chat = {name: body[name] for name in ("messages", "tools") if body.get(name)}
            return Call("/chat_tokenize", dumps({"model": served, **chat}))
        if not isinstance(body.get("prompt"), str):
            raise InvalidFieldError("the body needs 'prompt' (text) or 'messages'", param="prompt")
        return Call(_PATH, dumps({"inputs": body["prompt"]}))

    async with gateway.forwarder.open(
        make_wish(gateway, request, model, body, plan, buffered=True)
    ) as opened:
        if opened.replica.engine.serves(model.task, _PATH):
            return await relay(request, opened, request[SHAPE], request[REQUEST_ID_KEY])
        answer = opened.first + await whole(opened.response)
        if opened.response.status >= 400:
            raise refusal(opened, answer)
        found = read_answer(answer)
        if isinstance(found, dict):
            found = found.get("tokenize_response")
        if not isinstance(found, list) or not all(isinstance(token, dict) for token in found):
            raise UpstreamError(f"{opened.replica.id} did not tell the tokens", code="upstream_garbled")
        told: dict[str, Any] = {
            "count": len(found),
            "max_model_len": None,
            "tokens": [token.get("id") for token in found],
            "token_strs": [token.get("text") for token in found] if body.get("return_token_strs") else None,
        }
        return web.json_response(told, headers=told_by(opened))
