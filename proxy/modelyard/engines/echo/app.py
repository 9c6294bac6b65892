"""The echo engine as an aiohttp application: both dialects, metrics, and the draining state."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry

from modelyard.engines.echo.bodies import BadBody, read_object
from modelyard.engines.echo.messages import MessageRoutes
from modelyard.engines.echo.metrics import EchoMetrics
from modelyard.engines.echo.openai import OpenAIRoutes
from modelyard.engines.echo.openai import error_response as openai_error
from modelyard.engines.echo.openai_request import OpenAIError
from modelyard.engines.echo.pooling import PoolingRoutes
from modelyard.engines.echo.runtime import EchoSettings, Runtime
from modelyard.engines.echo.tgi import TgiRoutes
from modelyard.engines.echo.tgi import error_response as tgi_error
from modelyard.engines.echo.tgi_request import TgiError

_LOG = logging.getLogger("modelyard.echo")
_MAX_BODY = 32 * 1024 * 1024  # bytes
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """Counts what runs, and turns new work away once it is closed."""

    def __init__(self) -> None:
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    @property
    def running(self) -> int:
        """Requests between their first and their last byte."""
        return self._running

    def close(self) -> None:
        """From now on every new request is answered with 503."""
        self.draining = True

    async def idle(self) -> None:
        """Return once nothing runs."""
        await self._idle.wait()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count one request, or refuse it. Probes and metrics are answered until the end."""
        if request.method != "POST":
            return await handler(request)
        if self.draining:
            response = _refusal(request, 503, "The engine is stopping; send the request to another replica.")
            response.force_close()
            return response
        self._running += 1
        self._idle.clear()
        try:
            return await handler(request)
        finally:
            self._running -= 1
            if self._running == 0:
                self._idle.set()


def build_app(
    settings: EchoSettings,
    *,
    registry: CollectorRegistry,
    gate: Gate,
    version: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    now: Callable[[], float] = time.time,
    ids: Callable[[], str] = lambda: uuid.uuid4().hex,
) -> web.Application:
    """Wire one engine. ``clock`` is monotonic seconds, ``now`` Unix seconds, ``ids`` fresh response ids."""
    metrics = EchoMetrics(registry)
    runtime = Runtime(settings, metrics, clock, sleep)
    app = web.Application(middlewares=[_errors, gate.middleware], client_max_size=_MAX_BODY)

    async def scrape(request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def name_instance(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["x-echo-instance"] = settings.instance

    openai, tgi = OpenAIRoutes(runtime, ids, now), TgiRoutes(runtime, version, lambda: gate.draining)
    pooling = PoolingRoutes(runtime, openai_error)
    app.add_routes(openai.routes())
    if settings.like != "vllm":
        app.add_routes(tgi.routes())
    else:
        app.add_routes([web.get("/health", tgi.health)])
    if settings.like != "tgi":
        app.add_routes(pooling.routes())
        app.add_routes(MessageRoutes(runtime, ids, now).routes())

    async def tokenize(request: web.Request) -> web.StreamResponse:
        try:
            asks_tgi = settings.like != "vllm" and not {"prompt", "messages"} & set(
                await read_object(request)
            )
        except BadBody:
            asks_tgi = True
        return await (tgi.tokenize if asks_tgi or settings.like == "tgi" else pooling.tokens)(request)

    app.add_routes([web.post("/tokenize", tokenize)])
    app.add_routes([web.get("/metrics", scrape)])
    app.on_response_prepare.append(name_instance)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give what no handler answered the error object of the route's dialect."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        return _refusal(request, exc.status, _told(request, exc))
    except ConnectionResetError:
        # the client left, so nobody reads this; raising would be logged as a fault of the engine
        return web.Response(status=499)
    except Exception:
        _LOG.exception("request failed: %s %s", request.method, request.path)
        return _refusal(request, 500, "The engine failed; its log says why.")


def _told(request: web.Request, exc: web.HTTPException) -> str:
    if exc.status == 413:
        return f"The body is larger than {_MAX_BODY} bytes."
    return f"{exc.reason}: {request.method} {request.path}"


def _refusal(request: web.Request, status: int, message: str) -> web.Response:
    if request.path.startswith("/v1/"):
        code = _CODES.get(status, "unavailable" if status == 503 else None)
        return openai_error(OpenAIError(status, message, code))
    return tgi_error(TgiError(status, message, "unavailable" if status == 503 else "unknown"))
