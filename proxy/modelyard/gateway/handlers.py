"""One handler for each operation of the route table; shapes are made in ``dialects``, choices below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from modelyard import __version__
from modelyard.errors import UnauthorizedError

from .admin_key import AdminKey
from .answers import Shape
from .context import Gateway
from .dialects import backend, openai, tgi
from .dialects.bodies import read_object
from .keys import SHAPE
from .routes import ROUTES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Handlers:
    """The operations, by name. Each method is one operation of ``routes.ROUTES``."""

    def __init__(self, gateway: Gateway, admin_key: AdminKey | None) -> None:
        self._gateway = gateway
        self._admin_key = admin_key

    async def info(self, _: web.Request) -> web.Response:
        """``GET /``."""
        registry = self._gateway.keeper.current
        return web.json_response(
            {
                "name": "Modelyard",
                "message": "Modelyard routes requests to the language models listed here.",
                "version": __version__,
                "status": "draining" if self._gateway.lifecycle.draining else "running",
                "models": list(registry.models),
                "endpoints": {
                    f"{route.method} {route.path}": route.summary for route in ROUTES if not route.admin
                },
            }
        )

    async def live(self, _: web.Request) -> web.Response:
        """``GET /live``."""
        return web.json_response({"status": "alive"})

    async def health(self, _: web.Request) -> web.Response:
        """``GET /health``: always 200, for it speaks of the proxy; what is wrong is in the body."""
        gateway = self._gateway
        models = gateway.keeper.current.models
        usable = sum(gateway.balancer.available(name) for name in models)
        in_step = gateway.keeper.status.in_step
        return web.json_response(
            {
                "status": "ok" if usable == len(models) and in_step else "degraded",
                "version": __version__,
                "models": len(models),
                "models_available": usable,
                "registry_generation": gateway.keeper.current.generation,
                "registry_in_step": in_step,
            }
        )

    async def ready(self, _: web.Request) -> web.Response:
        """``GET /ready``."""
        gateway = self._gateway
        probed = not len(gateway.pool) or any(
            replica.health.probed_at is not None for replica in gateway.pool.everyone()
        )
        if gateway.lifecycle.draining:
            return web.json_response({"ready": False, "status": "draining"}, status=503)
        if not probed:
            return web.json_response({"ready": False, "status": "no replica has been probed yet"}, status=503)
        return web.json_response({"ready": True, "status": "ready"})

    async def models(self, _: web.Request) -> web.Response:
        """``GET /models``."""
        return web.json_response(backend.list_models(self._gateway))

    async def model_health(self, request: web.Request) -> web.Response:
        """``GET /models/{model_id}/health``."""
        return web.json_response(backend.model_health(self._gateway, request.match_info["model_id"]))

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /generate``: the body tells whose shape it is."""
        body, raw = await read_object(request, self._gateway.settings.body_timeout_s)
        if "inputs" in body:
            request[SHAPE] = Shape.TGI
            return await tgi.generate(self._gateway, request, body, raw)
        return await backend.generate(self._gateway, request, body)

    async def openai_models(self, _: web.Request) -> web.Response:
        """``GET /v1/models``."""
        return web.json_response(openai.list_models(self._gateway))

    async def openai_model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{model_id}``."""
        name = request.match_info["model_id"].rstrip("/")
        return web.json_response(openai.show_model(self._gateway, name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``."""
        return await openai.completion(self._gateway, request, "/v1/chat/completions")

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``."""
        return await openai.completion(self._gateway, request, "/v1/completions")

    async def metrics(self, _: web.Request) -> web.Response:
        """``GET /metrics``."""
        return web.Response(
            body=self._gateway.metrics.render(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def admin_registry(self, request: web.Request) -> web.Response:
        """``GET /admin/registry``."""
        self._only_admin(request)
        status, registry = self._gateway.keeper.status, self._gateway.keeper.current
        return web.json_response(
            {
                "source": status.source,
                "generation": registry.generation,
                "in_step": status.in_step,
                "taken_at": _time(status.taken_at),
                "taken": status.taken,
                "refused": status.refused,
                "refused_at": _time(status.refused_at),
                "missing": status.missing,
                "problems": list(status.problems),
                "models": {
                    model.id: {
                        "aliases": list(model.aliases),
                        "endpoints": [item.id for item in model.endpoints],
                    }
                    for model in registry.models.values()
                },
            }
        )

    async def admin_replicas(self, request: web.Request) -> web.Response:
        """``GET /admin/replicas``."""
        self._only_admin(request)
        now = datetime.fromtimestamp(self._gateway.clock(), UTC)
        rows: list[dict[str, Any]] = [
            {
                "id": replica.id,
                "model": replica.model_id,
                "url": replica.endpoint.url,
                "engine": replica.engine.name,
                "state": replica.state(now).value,
                "health": replica.health.state.value,
                "reason": replica.health.reason,
                "since": _time(replica.health.since or None),
                "probed_at": _time(replica.health.probed_at),
                "in_flight": replica.in_flight,
                "weight": replica.endpoint.weight,
            }
            for replica in self._gateway.pool.everyone()
        ]
        return web.json_response({"replicas": rows})

    def _only_admin(self, request: web.Request) -> None:
        if self._admin_key is None or not self._admin_key.accepts(request.headers.get("Authorization", "")):
            raise UnauthorizedError("the management key is needed: send Authorization: Bearer <key>")


def _time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
