"""From an open stream to a client of another dialect: translated as it comes, with an honest end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web

from modelyard.errors import ClientGoneError, ModelyardError, UpstreamBrokenError, UpstreamError

from ..forward import Opened
from ..relay import BrokenStreamError
from ..upstream import whole
from .streams import StreamTranslator
from .wishes import refusal, told_by

_log = logging.getLogger(__name__)
# How long an engine may take to end its answer after its last event, before its connection is dropped.
_LAST_BYTES_S = 1.0


async def relay_translated(
    request: web.Request,
    opened: Opened,
    translator: StreamTranslator,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send ``opened``, an event stream, to the client as ``translator`` says it.

    What fails before anything was sent is raised, so that a status can tell it. After that the client gets an
    error event and the connection is closed short of its end.
    """
    await _check(opened)
    response: web.StreamResponse | None = None
    data = opened.first
    while True:
        fault: ModelyardError | None = None
        out = b""
        try:
            out = translator.feed(data) if data else translator.end()
            fault = translator.fault
        except ModelyardError as exc:
            fault = exc
        if out:
            if response is None:
                response = await _begun(request, opened, headers)
            await _write(response, out)
        if fault is None and not data:
            return response or await _begun(request, opened, headers)
        if fault is None and translator.finished and response is not None:
            await _read_off(opened)
            return response
        if fault is None:
            try:
                data = await opened.response.chunk()
                continue
            except UpstreamError as exc:
                fault = exc
        raise await _broken(request, opened, translator, response, fault)


async def _broken(
    request: web.Request,
    opened: Opened,
    translator: StreamTranslator,
    response: web.StreamResponse | None,
    fault: ModelyardError,
) -> Exception:
    """What to raise for ``fault``, after the client has been told where that is still possible."""
    cause = fault if isinstance(fault, UpstreamError) else UpstreamBrokenError(fault.message)
    opened.pursuit.finish(cause)
    _log.warning("request %s: replica %s: %s", opened.pursuit.request_id, opened.replica.id, fault.message)
    if response is None:
        return fault
    await _write(response, translator.broken(fault))
    if request.transport is not None:
        request.transport.close()
    return BrokenStreamError(cause, response)


async def _check(opened: Opened) -> None:
    """Raises the engine's own refusal, or ``UpstreamError`` where the answer is no event stream."""
    kind = opened.response.headers.get("Content-Type", "")
    if opened.response.status >= 400:
        raise refusal(opened, opened.first + await whole(opened.response))
    if not kind.startswith("text/event-stream"):
        raise UpstreamError(f"{opened.replica.id} did not answer with a stream", code="upstream_garbled")


async def _begun(
    request: web.Request, opened: Opened, headers: Mapping[str, str] | None
) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            **(headers or {}),
            **told_by(opened),
        }
    )
    try:
        await response.prepare(request)
    except ConnectionError as exc:
        raise ClientGoneError("the client left") from exc
    return response


async def _write(response: web.StreamResponse, data: bytes) -> None:
    try:
        await response.write(data)
    except ConnectionError as exc:
        raise ClientGoneError("the client left") from exc


async def _read_off(opened: Opened) -> None:
    """Read what the engine sends after the proper end, so that its connection can be used again."""
    with suppress(UpstreamError, TimeoutError):
        async with asyncio.timeout(_LAST_BYTES_S):
            while await opened.response.chunk():
                pass
