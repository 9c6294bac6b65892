"""TGI's routes: ``/generate``, ``/generate_stream`` and ``/``, each for every engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

from aiohttp import web

from modelyard.errors import InvalidFieldError, UpstreamError
from modelyard.registry.model import Model

from ...answers import Shape
from ...context import Gateway
from ...forward import Call
from ...keys import REQUEST_ID_KEY
from ...relay import relay
from ...replicas import Replica
from ..bodies import text_field
from ..limits import bounded, check_size, limits_apply
from ..streams import reading
from ..translated import relay_translated
from ..wishes import answer_object, dumps, make_wish, told_by
from .reply import from_completion, headers_of, stream_headers
from .request import Asked, asked, to_completion
from .stream import CompletionToTgi

_UNPROCESSABLE = 422


async def compatible(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``POST /``: ``stream`` in the body chooses the form of the answer; a plain one stands in a list."""
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidFieldError("'stream' must be true or false", status=_UNPROCESSABLE, param="stream")
    return await _generated(gateway, request, body, raw, stream=bool(stream), path="/")


async def generate(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``POST /generate``: ``{"inputs", "parameters"}`` -> ``{"generated_text", "details"?}``."""
    return await _generated(gateway, request, body, raw, stream=False, path="/generate")


async def generate_stream(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes
) -> web.StreamResponse:
    """``POST /generate_stream``: one event for each token."""
    return await _generated(gateway, request, body, raw, stream=True, path="/generate_stream")


def model_of(gateway: Gateway, request: web.Request) -> Model:
    """The model in the path, in the header ``X-Model``, or the default, in this order.

    Raises ``ModelNotFoundError``, and ``InvalidFieldError`` where the model does not generate text.
    """
    named = request.match_info.get("model_id")
    where = "X-Model" if named is None else "model_id"
    name = request.headers.get("X-Model") if named is None else named.rstrip("/")
    model = gateway.model(name, param=where) if name else gateway.default_model(param=where)
    if model.task != "generate":
        raise InvalidFieldError(
            f"model {model.id!r} is for the task {model.task!r}, not for generating text",
            status=_UNPROCESSABLE,
            param=where,
        )
    return model


async def _generated(
    gateway: Gateway, request: web.Request, body: dict[str, Any], raw: bytes, *, stream: bool, path: str
) -> web.StreamResponse:
    began = time.perf_counter()
    text_field(body, "inputs", status=_UNPROCESSABLE)
    model = model_of(gateway, request)
    body, raw = _limited(model, body, raw)
    identity = request[REQUEST_ID_KEY]

    @cache
    def said() -> Asked:
        # an engine that speaks TGI judges the request itself
        return asked(body, stream=stream)

    plan = _plan(raw, path, said)
    wish = make_wish(gateway, request, model, body, plan, buffered=not stream)
    async with gateway.forwarder.open(wish) as opened:
        if opened.replica.engine.speaks("tgi"):
            return await relay(request, opened, Shape.TGI, identity)
        if stream:
            translator = CompletionToTgi(said(), identity)
            return await relay_translated(request, opened, translator, stream_headers(said()))
        answer = await answer_object(opened)
        with reading():
            reply = from_completion(answer, said())
        if reply is None:
            raise UpstreamError(f"{opened.replica.id} answered without any text", code="upstream_garbled")
        headers = headers_of(answer, said(), time.perf_counter() - began)
        return web.json_response([reply] if path == "/" else reply, headers=headers | told_by(opened))


def _limited(model: Model, body: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The request within the limits of its model; what is no mapping is judged further on."""
    check_size(model, len(raw))
    parameters = body.get("parameters") or {}
    if not limits_apply(model) or not isinstance(parameters, dict):
        return body, raw
    within = bounded(model.limits, parameters, ("max_new_tokens",), status=_UNPROCESSABLE)
    if within is parameters:
        return body, raw
    body = {**body, "parameters": within}
    return body, dumps(body)


def _plan(raw: bytes, path: str, said: Callable[[], Asked]) -> Callable[[Replica], Call]:
    @cache
    def translated(served_name: str) -> bytes:
        return dumps(to_completion(said(), served_name))

    def plan(replica: Replica) -> Call:
        if replica.engine.speaks("tgi"):
            return Call(path, raw)
        return Call("/v1/completions", translated(replica.endpoint.served_name))

    return plan
