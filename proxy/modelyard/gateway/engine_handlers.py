"""The operations that bring a request to an engine which serves it itself; shapes are made in ``dialects``."""

from __future__ import annotations

from aiohttp import web

from .answers import Shape
from .context import Gateway
from .dialects import audio, responses, tokens
from .dialects.anthropic import serving
from .dialects.bodies import read_object
from .dialects.passing import passed
from .dialects.tgi import describing
from .keys import SHAPE


class EngineHandlers:
    """One method for each kind of route."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def passed(self, request: web.Request) -> web.StreamResponse:
        """Every route whose JSON goes to an engine as it is."""
        return await passed(self._gateway, request, request.path.rstrip("/"))

    async def messages(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages``."""
        return await serving.messages(self._gateway, request)

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/messages/count_tokens``."""
        return await serving.count_tokens(self._gateway, request)

    async def create_response(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/responses``."""
        return await responses.create(self._gateway, request)

    async def kept_response(self, request: web.Request) -> web.StreamResponse:
        """``GET /v1/responses/{response_id}`` and ``POST /v1/responses/{response_id}/cancel``."""
        return await responses.kept(self._gateway, request)

    async def heard(self, request: web.Request) -> web.StreamResponse:
        """``POST /v1/audio/transcriptions`` and ``POST /v1/audio/translations``."""
        return await audio.heard(self._gateway, request, request.path.rstrip("/"))

    async def tokenize(self, request: web.Request) -> web.StreamResponse:
        """``POST /tokenize``: the body tells whose shape it is."""
        body, raw = await read_object(request, self._gateway.settings.body_timeout_s)
        if "inputs" in body:
            request[SHAPE] = Shape.TGI
            return await describing.tokenize(self._gateway, request, body, raw)
        return await tokens.tokenize(self._gateway, request, body, raw)
