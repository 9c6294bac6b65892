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
from .headers import REQUEST_ID, client_of, cross_origin, request_id
from .keys import REQUEST_ID_KEY, SHAPE, STARTED, VISIT
from .relay import BrokenStreamError
from .routes import shape_of
from .trace import parent_of
from .visit import Visit

_log = logging.getLogger(__name__)


def make_guard(gateway: Gateway) -> Middleware:
    """The outermost middleware."""
    networks = gateway.settings.trusted_networks()

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        # not the loop's clock: uvloop's stands still within one turn and counts milliseconds
        started = time.perf_counter()
        identity = request_id(request.headers)
        resource = request.match_info.route.resource
        route = resource.canonical.rstrip("/") or "/" if resource is not None else "none"
        client = request.remote or ""
        if networks:
            client = client_of(client, request.headers.getall("x-forwarded-for", []), networks)
        visit = Visit(identity, request.method, route, client, started)
        request[REQUEST_ID_KEY] = identity
        request[SHAPE] = shape_of(request.path)
        request[VISIT] = visit
        if gateway.tracing is not None:
            visit.trace = gateway.tracing.begin(parent_of(request.headers))
        status = 500
        gateway.lifecycle.enter()
        try:
            if _is_preflight(request):
                response: web.StreamResponse = web.Response(status=204)
            else:
                response = await _answered(request, handler, visit)
            status = response.status
            if isinstance(response, web.Response) and response.content_length:
                visit.size = response.content_length
            return response
        except asyncio.CancelledError:
            # the client closed its connection, or the grace of a shutdown is over
            status = ClientGoneError.status
            visit.error = ClientGoneError.code
            raise
        finally:
            gateway.lifecycle.leave()
            gateway.ended(visit, status)

    return guard


async def _answered(request: web.Request, handler: Handler, visit: Visit) -> web.StreamResponse:
    """The handler's answer, or its error in the route's shape."""
    identity = visit.request_id
    try:
        return await handler(request)
    except BrokenStreamError as exc:
        visit.error = exc.cause.code
        return exc.response
    except ModelyardError as exc:
        error = exc
    except web.HTTPException as exc:
        error = _told(request, exc)
    except Exception:
        _log.exception("request %s: %s %s failed in the proxy", identity, request.method, request.path)
        error = ModelyardError(f"the proxy failed; tell the operator the request id {identity}")
        if request.get(STARTED):
            visit.error = error.code
            if request.transport is not None:
                request.transport.close()
            raise
    visit.error = error.code
    return error_response(error, request[SHAPE], identity)


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

    async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
        request[STARTED] = True
        response.headers[hdrs.SERVER] = "modelyard"
        identity = request.get(REQUEST_ID_KEY)
        if identity is not None:
            response.headers[REQUEST_ID] = identity
        if gateway.lifecycle.draining:
            response.force_close()
        told = cross_origin(origins, request.headers.get(hdrs.ORIGIN))
        response.headers.extend(told)
        if hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in dict(told):
            return
        if _is_preflight(request):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = "GET, POST, OPTIONS"
            wanted = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
            if wanted:
                response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = wanted
            response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = "600"

    return on_prepare
