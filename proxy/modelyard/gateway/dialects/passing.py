"""Routes whose bodies are JSON and whose answers pass byte for byte: to the engines that serve them, only."""

from __future__ import annotations

from functools import cache
from typing import Any

from aiohttp import web

from modelyard.catalog.loader import tasks_of
from modelyard.errors import BadRequestError, InvalidFieldError, NotSupportedError
from modelyard.registry.model import Model

from ..context import Gateway
from ..forward import Call, Wish
from ..keys import REQUEST_ID_KEY, SHAPE
from ..relay import relay
from ..replicas import Replica
from .bodies import read_object
from .limits import limited
from .wishes import dumps, make_wish


async def passed(gateway: Gateway, request: web.Request, path: str) -> web.StreamResponse:
    """``path`` for the model that the body names; only ``model`` is rewritten, and only where the engine
    knows the model by another name.
    """
    body, raw = await read_object(request, gateway.settings.body_timeout_s)
    model = model_in(gateway, body, path)
    wish = passing_wish(gateway, request, model, path, body, raw)
    async with gateway.forwarder.open(wish) as opened:
        return await relay(request, opened, request[SHAPE], request[REQUEST_ID_KEY])


def passing_wish(
    gateway: Gateway, request: web.Request, model: Model, path: str, body: dict[str, Any], raw: bytes
) -> Wish:
    """The wish for a body that passes as it came, within the model's limits. Its plan raises
    ``NotSupportedError`` for an engine that does not serve ``path``.
    """
    body, raw = limited(model, path, body, raw)

    @cache
    def named(served_name: str) -> bytes:
        return raw if body.get("model") == served_name else dumps({**body, "model": served_name})

    def plan(replica: Replica) -> Call:
        if not replica.engine.serves(model.task, path):
            raise not_served(model, replica, path)
        return Call(path, named(replica.endpoint.served_name))

    return make_wish(gateway, request, model, body, plan)


def model_in(gateway: Gateway, body: dict[str, Any], path: str) -> Model:
    """The model that a body names, which must be for a task that ``path`` is for.

    Raises ``InvalidFieldError``, ``ModelNotFoundError`` and ``BadRequestError``.
    """
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidFieldError(
            "the body needs 'model': the id of a model, see GET /v1/models", param="model"
        )
    return for_task(gateway.model(name, param="model"), name, path)


def for_task(model: Model, name: str, path: str) -> Model:
    """``model``, which a client called ``name``. Raises ``BadRequestError`` when ``path`` is not for it."""
    tasks = tasks_of(path)
    if model.task not in tasks:
        raise BadRequestError(
            f"model {name!r} is for the task {model.task!r}; {path} is for {' and '.join(tasks)}",
            code="wrong_task",
            param="model",
        )
    return model


def not_served(model: Model, replica: Replica, path: str) -> NotSupportedError:
    """The error for an engine that has no such route."""
    return NotSupportedError(
        f"the engine of model {model.id!r} ({replica.engine.name}) does not serve {path}; use another model"
    )
