"""From an open answer to the client: the same bytes, at once, and an honest end."""

from __future__ import annotations

import logging

from aiohttp import web

from modelyard.errors import ClientGoneError, UpstreamError

from .answers import Shape, error_event
from .forward import Opened
from .headers import ATTEMPTS, REPLICA, to_client

_log = logging.getLogger(__name__)


async def relay(request: web.Request, opened: Opened, shape: Shape, request_id: str) -> web.StreamResponse:
    """Send ``opened`` to the client untouched.

    An answer that breaks in the middle is never ended politely: an event stream gets an error event where it
    stands between two events, and in every case the connection is closed short of its announced end.
    """
    response = web.StreamResponse(status=opened.response.status, headers=to_client(opened.response.headers))
    response.headers[REPLICA] = opened.replica.id
    response.headers[ATTEMPTS] = str(opened.attempts)
    events = response.headers.get("Content-Type", "").startswith("text/event-stream")
    try:
        await response.prepare(request)
    except ConnectionError as exc:
        raise ClientGoneError("the client left") from exc
    data = opened.first
    tail = b""
    while data:
        try:
            await response.write(data)
        except ConnectionError as exc:
            raise ClientGoneError("the client left") from exc
        tail = (tail + data)[-4:] if events else tail
        try:
            data = await opened.response.chunk()
        except UpstreamError as exc:
            opened.pursuit.finish(exc)
            _log.warning("request %s: replica %s: %s", request_id, opened.replica.id, exc.message)
            if events and tail.endswith((b"\n\n", b"\r\n\r\n")):
                try:
                    await response.write(error_event(exc, shape, request_id))
                except ConnectionError as gone:
                    raise ClientGoneError("the client left") from gone
            if request.transport is not None:
                request.transport.close()
            raise BrokenStreamError(exc, response) from exc
    return response


class BrokenStreamError(Exception):
    """An answer was cut after its first byte had gone out; ``response`` has been ended, nothing more can be
    said.
    """

    def __init__(self, cause: UpstreamError, response: web.StreamResponse) -> None:
        super().__init__(cause.message)
        self.cause = cause
        self.response = response
