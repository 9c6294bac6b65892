"""One handler for each operation of the route table; shapes are made in ``dialects``, choices below."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from aiohttp import web

from modelyard import __version__
from modelyard.errors import UnauthorizedError

from . import replica_admin, request_admin
from .admin_key import AdminKey
from .answers import Shape
from .context import Gateway
from .dialects import backend, openai
from .dialects.bodies import read_object
from .dialects.completions import CHAT, TEXT
from .dialects.tgi import serving
from .keys import SHAPE
from .routes import ROUTES
from .tgi_handlers import METRICS_TYPE, TgiHandlers

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Handlers(TgiHandlers):
    """The operations, by name. Each method is one operation of ``routes.ROUTES``."""

    def __init__(self, gateway: Gateway, admin_key: AdminKey | None) -> None:
        super().__init__(gateway)
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
            return await serving.generate(self._gateway, request, body, raw)
        return await backend.generate(self._gateway, request, body, raw)

    async def openai_models(self, _: web.Request) -> web.Response:
        """``GET /v1/models``."""
        return web.json_response(openai.list_models(self._gateway))

    async def openai_model(self, request: web.Request) -> web.Response:
        """``GET /v1/models/{model_id}``."""
        name = request.match_info["model_id"].rstrip("/")
        return web.json_response(openai.show_model(self._gateway, name))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/chat/completions``."""
        return await openai.completion(self._gateway, request, CHAT)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/completions``."""
        return await openai.completion(self._gateway, request, TEXT)

    async def metrics(self, _: web.Request) -> web.Response:
        """``GET /metrics``."""
        peers = self._gateway.peers
        return web.Response(
            body=await self._gateway.metrics.page() if peers is None else await peers.metrics(),
            headers={"Content-Type": METRICS_TYPE},
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
                "taken_at": replica_admin.as_time(status.taken_at),
                "taken": status.taken,
                "refused": status.refused,
                "refused_at": replica_admin.as_time(status.refused_at),
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
        page = await replica_admin.list_page(self._gateway.pool.everyone(), now)
        return web.Response(text=page, content_type="application/json")

    async def admin_requests(self, request: web.Request) -> web.Response:
        """``GET /admin/requests``."""
        self._only_admin(request)
        return web.json_response(await request_admin.running(self._gateway, request.query.get("limit")))

    async def admin_suspects(self, request: web.Request) -> web.Response:
        """``GET /admin/suspects``."""
        self._only_admin(request)
        return web.json_response(request_admin.suspects(self._gateway))

    async def admin_explain(self, request: web.Request) -> web.Response:
        """``GET /admin/explain``."""
        self._only_admin(request)
        name, session = request.query.get("model"), request.query.get("session")
        return web.json_response(request_admin.explain(self._gateway, name, session))

    async def admin_drain_replica(self, request: web.Request) -> web.Response:
        """``POST /admin/replicas/{replica_id}/drain``."""
        return self._drained_one(request, drained=True)

    async def admin_undrain_replica(self, request: web.Request) -> web.Response:
        """``POST /admin/replicas/{replica_id}/undrain``."""
        return self._drained_one(request, drained=False)

    async def admin_drain(self, request: web.Request) -> web.Response:
        """``POST /admin/drain``."""
        return await self._drained_many(request, drained=True)

    async def admin_undrain(self, request: web.Request) -> web.Response:
        """``POST /admin/undrain``."""
        return await self._drained_many(request, drained=False)

    def _drained_one(self, request: web.Request, *, drained: bool) -> web.Response:
        self._only_admin(request)
        replica_id = request.match_info["replica_id"]
        return web.json_response(replica_admin.drain_one(self._gateway, replica_id, drained=drained))

    async def _drained_many(self, request: web.Request, *, drained: bool) -> web.Response:
        self._only_admin(request)
        body, _ = await read_object(request, self._gateway.settings.body_timeout_s)
        return web.json_response(replica_admin.drain_many(self._gateway, body, drained=drained))

    def _only_admin(self, request: web.Request) -> None:
        if self._admin_key is None or not self._admin_key.accepts(request.headers.get("Authorization", "")):
            raise UnauthorizedError("the management key is needed: send Authorization: Bearer <key>")
