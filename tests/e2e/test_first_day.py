"""A new user's first day: a bare Debian, a clean clone, and the two lines of the README. No root, no Docker, no GPU."""

from __future__ import annotations

import json
import re

import pytest

from tests.hosts.newcomer import Newcomer

pytestmark = pytest.mark.timeout(900)

PROXY = "http://127.0.0.1:8000"
ENGINE_PORTS = set(range(8100, 8200))


def test_up_try_up_again_down(plain_host: Newcomer) -> None:
    before = plain_host.processes()

    up = plain_host.run("make up", timeout=600)
    assert up.returncode == 0, up.stdout + up.stderr
    assert up.stdout.count("ready") >= 2, up.stdout
    listening = plain_host.listening_ports()
    assert 8000 in listening
    assert len(listening & ENGINE_PORTS) == 2

    # the lines that it prints work as they stand
    lines = [line.strip() for line in up.stdout.splitlines() if line.strip().startswith("curl ")]
    assert len(lines) >= 4, up.stdout
    for line in lines:
        answer = plain_host.beside(line.replace("curl ", "curl -fsS ", 1))
        assert answer.returncode == 0, f"{line}\n{answer.stdout}{answer.stderr}"
        assert "echo" in answer.stdout, f"{line}\n{answer.stdout}"

    (chat,) = [line.strip() for line in up.stdout.splitlines() if "modelyard chat " in line]
    answer = plain_host.run(chat)
    assert (answer.returncode, answer.stdout) == (0, "Hello!\n"), answer.stderr

    documented_requests_of_the_generation_backend(plain_host)

    again = plain_host.run("make up", timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.search(r"localhost\s+: ok=\d+\s+changed=0\s", again.stdout), again.stdout

    down = plain_host.run("make down", timeout=300)
    assert down.returncode == 0, down.stdout + down.stderr
    assert plain_host.listening_ports() == set()
    assert plain_host.processes() == before


def documented_requests_of_the_generation_backend(newcomer: Newcomer) -> None:
    """Every request that the generation backend's own documentation shows."""

    def curl(arguments: str) -> object:
        answer = newcomer.beside(f"curl -fsS {arguments}")
        assert answer.returncode == 0, f"{arguments}\n{answer.stderr}"
        return json.loads(answer.stdout)

    assert isinstance(curl(f"{PROXY}/"), dict)

    models = curl(f"{PROXY}/models")
    assert isinstance(models, list)
    assert {key: type(value) for key, value in models[0].items()} == {
        "id": str, "name": str, "hf_name": str, "endpoint": str, "available": bool,
    }  # fmt: skip

    health = curl(f"{PROXY}/models/gpt-2/health")
    assert isinstance(health, dict)
    assert health.keys() == {"model_id", "endpoint", "healthy", "status"}
    assert (health["model_id"], health["healthy"], health["status"]) == ("gpt-2", True, "available")

    for body in (
        {"model_id": "gpt-2", "prompt": "Hello, world!", "max_new_tokens": 50},
        {
            "model_id": "gpt-2",
            "prompt": "Once upon a time",
            "max_new_tokens": 200,
            "temperature": 0.7,
            "top_p": 0.95,
            "repetition_penalty": 1.0,
        },
    ):
        answer = curl(f"-X POST {PROXY}/generate -H 'Content-Type: application/json' -d '{json.dumps(body)}'")
        assert isinstance(answer, dict)
        assert answer.keys() == {"generated_text", "model_id"}
        assert answer["model_id"] == "gpt-2"
        assert answer["generated_text"]
