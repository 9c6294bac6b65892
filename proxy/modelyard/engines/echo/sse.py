"""Server-sent events, as both dialects stream them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web


class EventStream:
    """One streamed answer. Open it with ``begin``, then ``send`` objects, then ``end``.

    ``prefix`` is what stands before the JSON: OpenAI and vLLM write ``data: ``, TGI writes ``data:``.
    """

    def __init__(self, request: web.Request, prefix: bytes, headers: Mapping[str, str] | None = None) -> None:
        self._request = request
        self._prefix = prefix
        self._response = web.StreamResponse(headers={"Cache-Control": "no-cache", **(headers or {})})
        self._response.content_type = "text/event-stream"

    async def begin(self) -> None:
        """Send status 200 and the headers."""
        await self._response.prepare(self._request)

    async def send(self, *events: Mapping[str, Any] | bytes) -> None:
        """Send events in one write; ConnectionResetError when the client has left."""
        lines = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
        await self._response.write(b"".join(self._prefix + line + b"\n\n" for line in lines))

    async def end(self) -> web.StreamResponse:
        """Finish the body; gives the response for the handler to return."""
        await self._response.write_eof()
        return self._response
