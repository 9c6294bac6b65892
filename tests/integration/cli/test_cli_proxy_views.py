from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner, Result

from modelyard.cli.main import load

KEY = "k3y-with-enough-different-letters-42"
REQUESTS = {
    "total": 3,
    "requests": [
        {"id": "r1", "model": "m", "replica": "a", "state": "streaming", "age_s": 12.34, "events": 7},
        {"id": "r2", "model": "m", "replica": None, "state": "waiting", "age_s": 0.5, "events": 0},
    ],
}
REPLICAS = {
    "replicas": [
        {"id": "a", "model": "m", "state": "hung", "reason": "answers", "in_flight": 2, "load": None},
        {"id": "b", "model": "m", "state": "ready", "since": "2026-01-01T00:00:00+00:00",
         "load": {"running": 1.0, "waiting": 0.0, "kv_usage": 0.25}},
    ]
}  # fmt: skip
EXPLAIN = {
    "model": "m", "serving": "n", "chosen": "c",
    "models": [
        {"model": "m", "replicas": [{"replica": "a", "state": "failing", "why": "failing: [bold]refused"}]},
        {"model": "n", "replicas": [{"replica": "c", "state": "ready", "why": "ready", "chosen": True}]},
    ],
}  # fmt: skip

Ask = Callable[..., "asyncio.Future[Result]"]


@pytest.fixture
async def ask(tmp_path: Path) -> object:
    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": "the management key is needed"}, status=401)
        if request.path == "/admin/explain" and request.query["model"] != "m":
            return web.json_response(
                {"error": "no model is called 'x'", "code": "model_not_found"}, status=404
            )
        told = {"/admin/requests": REQUESTS, "/admin/replicas": REPLICAS, "/admin/explain": EXPLAIN}
        return web.json_response(told[request.path])

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    key = tmp_path / "key"
    key.write_text(KEY + "\n")

    def run(
        name: str, *arguments: str, url: str | None = None, key_file: Path = key
    ) -> asyncio.Future[Result]:
        given = [*arguments, "--url", url or str(server.make_url("")), "--key-file", str(key_file)]
        return asyncio.ensure_future(asyncio.to_thread(CliRunner().invoke, load(name), given))

    yield run
    await server.close()


async def test_requests(ask: Ask) -> None:
    result = await ask("requests")
    assert result.exit_code == 0
    first, second = [line for line in result.output.splitlines() if line.startswith("r")]
    assert first.split()[:6] == ["r1", "m", "a", "streaming", "12.3", "s"]
    assert second.split()[:4] == ["r2", "m", "–", "waiting"]
    assert "3 in flight, the oldest 2 shown" in result.output


async def test_replicas(ask: Ask) -> None:
    result = await ask("replicas")
    assert result.exit_code == 0
    assert [line.split()[2] for line in result.output.splitlines()[1:]] == ["hung", "ready"]
    assert "25%" in result.output


async def test_explain(ask: Ask) -> None:
    result = await ask("explain", "m")
    assert result.exit_code == 0
    assert "failing: [bold]refused" in result.output
    assert "chosen: c, of the fallback n" in result.output
    assert [line.split()[1:3] for line in result.output.splitlines() if "→" in line] == [["n", "c"]]


@pytest.mark.parametrize(
    ("name", "told"), [(("requests",), REQUESTS), (("replicas",), REPLICAS), (("explain", "m"), EXPLAIN)]
)
async def test_json_is_what_the_proxy_said(ask: Ask, name: tuple[str, ...], told: object) -> None:
    result = await ask(*name, "--json")
    assert json.loads(result.output) == told


async def test_every_failure_is_a_sentence(ask: Ask, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("something else")
    for result, said in (
        (await ask("explain", "x"), "no model is called 'x'"),
        (await ask("replicas", key_file=wrong), "does not know this management key"),
        (await ask("replicas", key_file=tmp_path / "none"), "cannot be read"),
        (await ask("replicas", url="http://127.0.0.1:1"), "no proxy answers at"),
    ):
        assert result.exit_code == 1
        assert said in result.output
    assert (await ask("replicas", url="ftp://x")).exit_code == 2
