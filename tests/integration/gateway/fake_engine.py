"""An engine inside the test's own loop that fails on command."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

from aiohttp import web

CHUNKS = (b'data: {"n":0}\n\n', b'data: {"n":1}\n\n', b"data: [DONE]\n\n")


class FakeEngine:
    """Answers well unless ``script`` holds faults, one for each coming generation request.

    Faults: ``reset`` (closes before any answer), ``hang`` (never answers), ``head`` (sends the head, then
    nothing), ``cut`` (a stream ends after its first event), ``cut inside`` (in the middle of an event),
    ``stall`` (a stream goes silent after its first event), ``hold`` (a stream goes on when ``gate`` opens),
    ``short`` (less than the announced length), ``garbage`` (no JSON), or a number: that status.
    """

    def __init__(self) -> None:
        self.script: deque[str | int] = deque()
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.probes = 0
        self.live = 200
        self.ready = 200
        self.page = b""
        self.gate = asyncio.Event()
        self.probe_gate: asyncio.Event | None = None
        self.abandoned = asyncio.Event()
        self.chunks: tuple[bytes, ...] = CHUNKS
        self.active = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> FakeEngine:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._generate)
        app.router.add_get("/{path:.*}", self._probe)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Close the port and every connection; from now on connections are refused."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _probe(self, request: web.Request) -> web.Response:
        if request.path == "/metrics":
            return web.Response(body=self.page)
        self.probes += 1
        if self.probe_gate is not None:
            await self.probe_gate.wait()
        return web.Response(status=self.live if request.path == "/health" else self.ready)

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append((request.path, dict(request.headers), body))
        fault = self.script.popleft() if self.script else "ok"
        self.active += 1
        try:
            return await self._answer(request, body, fault)
        except asyncio.CancelledError:
            self.abandoned.set()
            raise
        finally:
            self.active -= 1

    async def _answer(self, request: web.Request, body: Any, fault: str | int) -> web.StreamResponse:
        assert request.transport is not None
        if isinstance(fault, int):
            return web.json_response(
                {"error": {"message": f"engine says {fault}"}},
                status=fault,
                headers={"Location": "http://inner/", "Retry-After": "7"} if fault in (302, 503) else None,
            )
        if fault == "reset":
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await asyncio.Event().wait()
        if fault == "garbage":
            return web.Response(text="<html>")
        if fault == "short":
            short = web.StreamResponse(headers={"Content-Length": "100"})
            await short.prepare(request)
            await short.write(b'{"generated_text": "ab')
            request.transport.close()
            return short
        if body.get("stream") or fault != "ok":
            return await self._stream(request, fault)
        return web.Response(
            body=json.dumps(self._object(request.path, body)), content_type="application/json"
        )

    def _object(self, path: str, body: Any) -> dict[str, Any]:
        if path == "/generate":
            return {"generated_text": f"tgi:{body['inputs']}"}
        text = f"openai:{body.get('prompt', '')}"
        return {
            "model": body.get("model"),
            "choices": [{"text": text, "finish_reason": "length", "message": {"content": text}}],
            "usage": {"completion_tokens": 3},
        }

    async def _stream(self, request: web.Request, fault: str | int) -> web.StreamResponse:
        assert request.transport is not None
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Set-Cookie": "a=b"})
        await response.prepare(request)
        if fault == "head":
            await response.write(b"")
            await asyncio.Event().wait()
        for number, chunk in enumerate(self.chunks):
            if number == 1 and fault == "cut inside":
                await response.write(chunk[:7])
            if number == 1 and fault in ("cut", "cut inside"):
                request.transport.close()
                return response
            if number == 1 and fault == "stall":
                await asyncio.Event().wait()
            if number == 1 and fault == "hold":
                await self.gate.wait()
            await response.write(chunk)
            # its own packet, as far as the kernel agrees
            await asyncio.sleep(0)
        return response
