"""OpenAI's API: completions pass through untouched, the model list is made of the registry."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from modelyard.errors import BadRequestError, InvalidFieldError, NotSupportedError
from modelyard.registry.model import Model

from ..answers import Shape
from ..context import Gateway
from ..forward import Call
from ..keys import REQUEST_ID_KEY
from ..relay import relay
from ..replicas import Replica
from .bodies import read_object
from .wishes import dumps, make_wish


async def completion(gateway: Gateway, request: web.Request, path: str) -> web.StreamResponse:
    """Chat or text completions on ``path``: the body goes to a replica, its answer comes back, byte for byte.

    Only ``model`` is rewritten, and only where the engine knows the model by another name.
    """
    body, raw = await read_object(request, gateway.settings.body_timeout_s)
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidFieldError(
            "the body needs 'model': the id of a model, see GET /v1/models", param="model"
        )
    model = gateway.model(name, param="model")
    if model.task != "generate":
        raise BadRequestError(
            f"model {name!r} is for the task {model.task!r}, not for generating text",
            code="wrong_task",
            param="model",
        )
    renamed: dict[str, bytes] = {name: raw}

    def plan(replica: Replica) -> Call:
        if not replica.engine.speaks("openai"):
            raise NotSupportedError(f"the engine of model {name!r} ({replica.engine.name}) has no OpenAI API")
        served = replica.endpoint.served_name
        if served not in renamed:
            renamed[served] = dumps({**body, "model": served})
        return Call(path, renamed[served])

    wish = make_wish(gateway, request, model, body, plan)
    async with gateway.forwarder.open(wish) as opened:
        return await relay(request, opened, Shape.OPENAI, request[REQUEST_ID_KEY])


def list_models(gateway: Gateway) -> dict[str, Any]:
    """``GET /v1/models``: from the registry alone, so that dead engines do not matter."""
    return {
        "object": "list",
        "data": [_card(gateway, model) for model in gateway.keeper.current.models.values()],
    }


def show_model(gateway: Gateway, name: str) -> dict[str, Any]:
    """``GET /v1/models/{id}``. Raises ``ModelNotFoundError``."""
    return _card(gateway, gateway.find(name, param="model"))


def _card(gateway: Gateway, model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": int(gateway.keeper.status.taken_at),
        "owned_by": "modelyard",
        "root": model.hf_name or model.id,
        "name": model.name,
        "task": model.task,
        "aliases": list(model.aliases),
        "available": gateway.balancer.available(model.id),
    }
