"""OpenAI's API: who is asked, and the model list made of the registry."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from modelyard.registry.model import Model

from ..answers import Shape
from ..context import Gateway
from .bodies import read_object
from .completions import Asking, answered
from .passing import model_in


async def completion(gateway: Gateway, request: web.Request, path: str) -> web.StreamResponse:
    """Chat or text completions on ``path``, for the model that the body names."""
    body, raw = await read_object(request, gateway.settings.body_timeout_s)
    model, name = model_in(gateway, body, path), str(body["model"])
    return await answered(gateway, request, Asking(path, model, name, body, raw, Shape.OPENAI))


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
