"""TGI's routes that generate nothing: tokens of a text or a chat, what a model is and whether it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from modelyard import __version__
from modelyard.errors import NoReplicaError, NotSupportedError, UpstreamError
from modelyard.registry.model import Model

from ...answers import Shape, error_body, error_headers
from ...context import Gateway
from ...forward import Call, Opened
from ...keys import REQUEST_ID_KEY, VISIT
from ...relay import relay
from ...replicas import Replica
from ..bodies import text_field
from ..limits import check_size
from ..wishes import answer_object, dumps, make_wish, told_by
from .chat import without_nulls
from .serving import model_of
from .tokens import joined, placed

_UNPROCESSABLE = 422
_NOT_THERE = (404, 405)


async def tokenize(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``{"inputs"}`` -> ``[{"id", "text", "start", "stop"}]``."""
    inputs = text_field(body, "inputs", status=_UNPROCESSABLE)
    asked = {"prompt": inputs, "add_special_tokens": True}
    return await _tokens(
        gateway, request, "/tokenize", raw, asked, lambda ids, said: placed(inputs, ids, said)
    )


async def chat_tokenize(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``{"messages"}`` -> ``{"tokenize_response", "templated_text"}``."""
    asked = {name: without_nulls(body).get(name) for name in ("messages", "tools") if body.get(name)}

    def made(ids: list[int], said: list[str]) -> dict[str, Any]:
        text = joined(said)
        return {"tokenize_response": placed(text, ids, said), "templated_text": text}

    return await _tokens(
        gateway, request, "/chat_tokenize", raw, {**asked, "add_generation_prompt": True}, made
    )


async def info(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """``GET /info``: TGI's own where a replica of it serves the model, else what is known of the model."""
    model = model_of(gateway, request)

    def plan(replica: Replica) -> Call:
        if replica.engine.speaks("tgi"):
            return Call("/info", b"", method="GET")
        # the cheapest question whose answer tells the context length
        return Call("/tokenize", dumps({"model": replica.endpoint.served_name, "prompt": "a"}))

    async with gateway.forwarder.open(make_wish(gateway, request, model, {}, plan, buffered=True)) as opened:
        if opened.replica.engine.speaks("tgi"):
            return await relay(request, opened, Shape.TGI, request[REQUEST_ID_KEY])
        length = await _context_length(opened)
        return web.json_response(_described(model, length), headers=told_by(opened))


def health(gateway: Gateway, request: web.Request) -> web.Response:
    """``GET /health``: 200 with nothing in it while a replica can be used, else 503 as TGI's router says it."""
    model = model_of(gateway, request)
    if gateway.balancer.available(model.id):
        return web.Response()
    error = NoReplicaError(
        f"model {model.id!r} cannot be used now: {gateway.balancer.explain(model.id)}", retry_after_s=5
    )
    request[VISIT].error = error.code
    told = {**error_body(error, Shape.TGI, request[REQUEST_ID_KEY]), "error_type": "healthcheck"}
    return web.json_response(told, status=error.status, headers=error_headers(error))


async def _tokens(
    gateway: Gateway,
    request: web.Request,
    path: str,
    raw: bytes,
    asked: dict[str, Any],
    made: Callable[[list[int], list[str]], Any],
) -> web.StreamResponse:
    def plan(replica: Replica) -> Call:
        if replica.engine.speaks("tgi"):
            return Call(path, raw)
        body = {"model": replica.endpoint.served_name, **asked, "return_token_strs": True}
        return Call("/tokenize", dumps(body))

    model = model_of(gateway, request)
    check_size(model, len(raw))
    wish = make_wish(gateway, request, model, asked, plan, buffered=True)
    async with gateway.forwarder.open(wish) as opened:
        if opened.replica.engine.speaks("tgi"):
            return await relay(request, opened, Shape.TGI, request[REQUEST_ID_KEY])
        if opened.response.status in _NOT_THERE:
            raise NotSupportedError("the engine of this model does not tell the tokens of a text")
        answer = await answer_object(opened)
        ids, said = answer.get("tokens"), answer.get("token_strs")
        if not isinstance(ids, list) or not isinstance(said, list):
            raise UpstreamError(f"{opened.replica.id} did not tell the tokens", code="upstream_garbled")
        return web.json_response(made(ids, [str(piece) for piece in said]), headers=told_by(opened))


async def _context_length(opened: Opened) -> int | None:
    if opened.response.status >= 400:
        return None
    length = (await answer_object(opened)).get("max_model_len")
    return length if isinstance(length, int) else None


def _described(model: Model, length: int | None) -> dict[str, Any]:
    return {
        "model_id": model.hf_name or model.id,
        "model_sha": None,
        "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": None,
        "max_best_of": None,
        "max_stop_sequences": None,
        "max_input_tokens": None if length is None else length - 1,
        "max_total_tokens": length,
        "validation_workers": None,
        "max_client_batch_size": 1,
        "router": "modelyard",
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
