"""The operations of TGI's routes; shapes are made in ``dialects.tgi``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from .answers import Shape
from .context import Gateway
from .dialects import openai
from .dialects.bodies import read_object
from .dialects.completions import CHAT, TEXT, Asking, answered
from .dialects.tgi import describing, serving
from .engine_handlers import EngineHandlers
from .keys import SHAPE

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Operation = Callable[[Gateway, web.Request, dict[str, Any], bytes], Awaitable[web.StreamResponse]]


class TgiHandlers(EngineHandlers):
    """One method for each operation of TGI's routes."""

    async def tgi_compatible(self, request: web.Request) -> web.StreamResponse:
        """``POST /`` and ``POST /tgi/{model_id}``."""
        return await self._tgi(request, serving.compatible)

    async def tgi_generate(self, request: web.Request) -> web.StreamResponse:
        """``POST /tgi/{model_id}/generate``."""
        return await self._tgi(request, serving.generate)

    async def tgi_generate_stream(self, request: web.Request) -> web.StreamResponse:
        """``POST /generate_stream`` and ``POST /tgi/{model_id}/generate_stream``."""
        return await self._tgi(request, serving.generate_stream)

    async def tgi_tokenize(self, request: web.Request) -> web.StreamResponse:
        """``POST /tgi/{model_id}/tokenize``."""
        return await self._tgi(request, describing.tokenize)

    async def tgi_chat_tokenize(self, request: web.Request) -> web.StreamResponse:
        """``POST /tgi/{model_id}/chat_tokenize``."""
        return await self._tgi(request, describing.chat_tokenize)

    async def tgi_info(self, request: web.Request) -> web.StreamResponse:
        """``GET /tgi/{model_id}/info``."""
        return await describing.info(self._gateway, request)

    async def tgi_health(self, request: web.Request) -> web.Response:
        """``GET /tgi/{model_id}/health``."""
        return describing.health(self._gateway, request)

    async def tgi_metrics(self, request: web.Request) -> web.Response:
        """``GET /tgi/{model_id}/metrics``: of the proxy, which knows all replicas of the model."""
        model = serving.model_of(self._gateway, request)
        body = await self._gateway.metrics.page(model.id)
        return web.Response(body=body, headers={"Content-Type": METRICS_TYPE})

    async def tgi_models(self, request: web.Request) -> web.Response:
        """``GET /tgi/{model_id}/v1/models``."""
        model = serving.model_of(self._gateway, request)
        return web.json_response({"object": "list", "data": [openai.show_model(self._gateway, model.id)]})

    async def tgi_chat(self, request: web.Request) -> web.StreamResponse:
        """``POST /tgi/{model_id}/v1/chat/completions``."""
        return await self._openai(request, CHAT)

    async def tgi_completions(self, request: web.Request) -> web.StreamResponse:
        """``POST /tgi/{model_id}/v1/completions``."""
        return await self._openai(request, TEXT)

    async def _tgi(self, request: web.Request, operation: Operation) -> web.StreamResponse:
        request[SHAPE] = Shape.TGI
        body, raw = await read_object(request, self._gateway.settings.body_timeout_s)
        return await operation(self._gateway, request, body, raw)

    async def _openai(self, request: web.Request, path: str) -> web.StreamResponse:
        body, raw = await read_object(request, self._gateway.settings.body_timeout_s)
        # the model in the path counts: TGI ignores the one in the body
        model = serving.model_of(self._gateway, request)
        asking = Asking(path, model, model.id, body, raw, Shape.TGI)
        return await answered(self._gateway, request, asking)
