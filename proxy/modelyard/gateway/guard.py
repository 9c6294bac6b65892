"""What stands around every handler: request id, error shape, CORS, counts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from modelyard.errors import (
    BadRequestError,
    BodyTooLargeError,
    ClientGoneError,
    ModelyardError,
    NotFoundError,
)

from .answers import error_response
from .context import Gateway
from .headers import ATTEMPTS, REPLICA, REQUEST_ID, request_id
from .keys import MODEL_LABEL, REQUEST_ID_KEY, SHAPE, STARTED
from .relay import BrokenStreamError
from .routes import shape_of

_log = logging.getLogger(__name__)


def make_guard(gateway: Gateway) -> Middleware:
    """The outermost middleware."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        # not the loop's clock: uvloop's stands still within one turn and counts milliseconds
        started = time.perf_counter()
        identity = request_id(request.headers)
        request[REQUEST_ID_KEY] = identity
        request[SHAPE] = shape_of(request.path)
        status = 500
        gateway.lifecycle.enter()
        try:
            if _is_preflight(request):
                response: web.StreamResponse = web.Response(status=204)
            else:
                response = await _answered(gateway, request, handler, identity)
            status = response.status
            return response
        except asyncio.CancelledError:
            # the client closed its connection, or the grace of a shutdown is over
            status = ClientGoneError.status
            raise
        finally:
            gateway.lifecycle.leave()
            resource = request.match_info.route.resource
            route = resource.canonical.rstrip("/") or "/" if resource is not None else "none"
            gateway.metrics.request(
                route, request.get(MODEL_LABEL, ""), status, time.perf_counter() - started
            )

    return guard


async def _answered(
    gateway: Gateway, request: web.Request, handler: Handler, identity: str
) -> web.StreamResponse:
    """The handler's answer, or its error in the route's shape."""
    try:
        return await handler(request)
    except BrokenStreamError as exc:
        replica = gateway.pool.get(exc.response.headers.get(REPLICA, ""))
        if replica is not None:
            gateway.metrics.broken_stream(replica)
        return exc.response
    except ClientGoneError as exc:
        return error_response(exc, request[SHAPE], identity)
    except ModelyardError as exc:
        return error_response(exc, request[SHAPE], identity)
    except web.HTTPException as exc:
        return error_response(_told(request, exc), request[SHAPE], identity)
    except Exception:
        _log.exception("request %s: %s %s failed in the proxy", identity, request.method, request.path)
        if request.get(STARTED):
            if request.transport is not None:
                request.transport.close()
            raise
        fault = ModelyardError(f"the proxy failed; tell the operator the request id {identity}")
        return error_response(fault, request[SHAPE], identity)


def _told(request: web.Request, error: web.HTTPException) -> ModelyardError:
    """The framework's own refusals as errors of ours."""
    if error.status == 404:
        return NotFoundError(
            f"there is no route {request.path[:200]}; GET / lists the routes", code="no_such_route"
        )
    if error.status == 405:
        allowed = error.headers.get(hdrs.ALLOW, "")
        return ModelyardError(
            f"{request.path[:200]} does not take {request.method}; use {allowed}",
            status=405,
            code="method_not_allowed",
        )
    if error.status == 413:
        return BodyTooLargeError("the body is too large; send less")
    return BadRequestError(error.reason or "the request cannot be understood", status=error.status)


def _is_preflight(request: web.Request) -> bool:
    return (
        request.method == hdrs.METH_OPTIONS
        and hdrs.ORIGIN in request.headers
        and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers
    )


def make_on_prepare(gateway: Gateway) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Headers that every answer carries, streams included."""
    origins = frozenset(gateway.settings.allowed_origins)
    exposed = ", ".join((REQUEST_ID, REPLICA, ATTEMPTS))

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        request[STARTED] = True
        response.headers[hdrs.SERVER] = "modelyard"
        identity = request.get(REQUEST_ID_KEY)
        if identity is not None:
            response.headers[REQUEST_ID] = identity
        if gateway.lifecycle.draining:
            response.force_close()
        origin = request.headers.get(hdrs.ORIGIN)
        if origins and "*" not in origins:
            # also where no origin was named: a cache must not give that answer to a browser
            response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        if origin is None or not origins & {origin, "*"}:
            return
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = "*" if "*" in origins else origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = exposed
        if _is_preflight(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, OPTIONS"
            wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
            if wanted:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"

    return on_prepare
