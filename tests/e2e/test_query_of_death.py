"""A request that ends its engine, sent again and again to real engines."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.e2e.vllm_engines import MODEL, Proxy, proxy_for, vllm_engines

pytestmark = pytest.mark.timeout(1200)

# Without a C++ compiler in the image and with the compiling of small kernels on, asking for logprobs ends vLLM.
DEADLY = {"TORCHDYNAMO_DISABLE": "0"}


def ask(proxy: Proxy, text: str, **more: object) -> tuple[int, object]:
    body = {"model": MODEL, "prompt": text, "max_tokens": 4, "temperature": 0, **more}
    return proxy.post("/v1/completions", body, timeout=600)


def test_it_takes_at_most_two_of_three_engines_down_and_harms_nobody_else(
    parts: None, tmp_path: Path
) -> None:
    with vllm_engines(3, DEADLY) as engines:
        endpoints = [
            {"id": engine.name, "url": engine.url, "engine": "vllm", "served_name": MODEL}
            for engine in engines
        ]
        # an engine that is dying may be silent for minutes, and on a busy machine takes more than one to die
        patience = {"timeouts": {"first_byte_s": 240}}
        with proxy_for(endpoints, tmp_path, "--probe-interval-s", "1", more=patience) as proxy:
            assert ask(proxy, "before")[0] == 200

            others: list[int] = []
            over = threading.Event()

            def everybody_else() -> None:
                number = 0
                while not over.wait(0.2):  # a pause, so that the dying engine has a core to die on
                    number += 1
                    others.append(ask(proxy, f"harmless {number}")[0])

            threads = [threading.Thread(target=everybody_else) for _ in range(2)]
            for thread in threads:
                thread.start()
            try:
                deadly = [ask(proxy, "deadly", logprobs=3) for _ in range(10)]
            finally:
                over.set()
                for thread in threads:
                    thread.join()

            assert [status for status, _ in deadly if status < 400] == []
            assert sum(engine.is_running() for engine in engines) >= 1
            assert set(others) == {200}
            assert len(others) >= 4
            assert ask(proxy, "after")[0] == 200

            # those that were on its replicas when they ended are suspected less than it
            row = max(proxy.admin("/admin/suspects")["suspects"], key=lambda row: row["deaths"])
            assert row["model"] == MODEL
            # the second may be stuck instead
            ended = set(row["replicas"])
            assert 1 <= len(ended) <= 2
            # a container takes a while to end after its engine has
            end = time.monotonic() + 60
            while any(engine.is_running() for engine in engines if engine.name in ended):
                assert time.monotonic() < end, ended
                time.sleep(0.5)
            # either it is known to be to blame, or nobody is sure and the last one is kept from it
            assert deadly[-1][0] == (422 if row["condemned"] else 503)
