"""An engine that ends under a request on a connection that was used before."""

from __future__ import annotations

import asyncio

from .conftest import StartProxy, document
from .raw_engine import RawEngine
from .test_lane import at


async def test_a_request_lost_with_a_used_connection_and_its_engine_is_not_a_refused_one(
    engine: RawEngine, start_proxy: StartProxy
) -> None:
    proxy = await start_proxy(document(m=[at(engine)]))
    assert (await proxy.post("/v1/completions", {"model": "m"}))[0] == 200

    async def end(writer: asyncio.StreamWriter) -> None:
        assert engine._server is not None
        engine._server.close()
        engine.hang_up()

    engine.script.append(end)
    status, said, _ = await proxy.post("/v1/completions", {"model": "m", "prompt": "deadly"})
    assert (status, said["error"]["code"]) == (502, "upstream_broken")
