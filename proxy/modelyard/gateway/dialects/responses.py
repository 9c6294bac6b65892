"""OpenAI's responses: made by any replica, then looked up and cancelled where they were made."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web

from modelyard.errors import InvalidFieldError, NotFoundError

from ..context import Gateway
from ..forward import Call, Opened
from ..homes import Home, IdWatch
from ..keys import REQUEST_ID_KEY, SHAPE
from ..relay import relay
from ..replicas import Replica
from .bodies import read_object
from .passing import model_in, passing_wish
from .wishes import make_wish

PATH = "/v1/responses"


async def create(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """``POST /v1/responses``; one that goes on from ``previous_response_id`` goes where that one is kept."""
    body, raw = await read_object(request, gateway.settings.body_timeout_s)
    model = model_in(gateway, body, PATH)
    wish = passing_wish(gateway, request, model, PATH, body, raw)
    previous = body.get("previous_response_id")
    if previous is not None:
        if not isinstance(previous, str):
            raise InvalidFieldError("'previous_response_id' must be text", param="previous_response_id")
        home, replica = _home(gateway, previous)
        if home.model != model.id:
            raise InvalidFieldError(
                f"response {previous[:100]!r} was made by model {home.model!r}; name that one",
                param="previous_response_id",
            )
        wish = replace(wish, only=replica)
    async with gateway.forwarder.open(wish) as opened:
        return await relay(request, _watched(gateway, opened), request[SHAPE], request[REQUEST_ID_KEY])


async def kept(gateway: Gateway, request: web.Request) -> web.StreamResponse:
    """``GET /v1/responses/{id}`` and ``POST /v1/responses/{id}/cancel``."""
    identity = request.match_info["response_id"]
    home, replica = _home(gateway, identity)
    # the same rights as for making one
    model = gateway.model(home.model, param="response_id")
    suffix = "/cancel" if request.method == "POST" else ""
    query = f"?{request.rel_url.raw_query_string}" if request.query_string else ""
    path = f"{PATH}/{identity}{suffix}{query}"

    def plan(_: Replica) -> Call:
        return Call(path, b"", method=request.method)

    wish = make_wish(gateway, request, model, {}, plan, only=replica)
    async with gateway.forwarder.open(wish) as opened:
        return await relay(request, opened, request[SHAPE], request[REQUEST_ID_KEY])


def _home(gateway: Gateway, identity: str) -> tuple[Home, Replica]:
    home = gateway.responses.find(identity)
    if home is None:
        raise NotFoundError(
            f"no response {identity[:100]!r} is known here; it may be too old: send the conversation anew",
            code="response_not_found",
            param="response_id",
        )
    replica = gateway.pool.get(home.replica)
    if replica is None:
        raise NotFoundError(
            f"response {identity[:100]!r} was kept by replica {home.replica}, which is gone; "
            "send the conversation anew",
            code="response_lost",
            param="response_id",
        )
    return home, replica


def _watched(gateway: Gateway, opened: Opened) -> Opened:
    if opened.response.status >= 300:
        return opened
    home = Home(opened.replica.model_id, opened.replica.id)
    watch = IdWatch(
        opened.response, opened.first, lambda identity: gateway.responses.remember(identity, home)
    )
    return replace(opened, response=watch)
