from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from modelyard.settings import Setting, settings_table

GOOD = "version: 1\nmodels: {m: {endpoints: [{id: a, url: 'http://127.0.0.1:9', engine: vllm}]}}\n"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from modelyard.cli.main import main; main()", *arguments]


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=directory,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_serves_says_where_and_stops_in_order(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(GOOD)
    with subprocess.Popen(
        command("serve", "--registry", "r.yml", "--port", "0", "--json", "--log-level", "warning"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            assert said["models"] == {"m": ["http://127.0.0.1:9"]}
            with urllib.request.urlopen(f"{said['url']}/v1/models", timeout=20) as response:
                assert [card["id"] for card in json.load(response)["data"]] == ["m"]
            process.send_signal(signal.SIGTERM)
            told = {"stopped": True, "running": 0, "cut": 0, "models": {}}
            assert json.loads(process.stdout.readline()) == told
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_the_environment_of_the_generation_backend(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "TGI_GPT2_ENDPOINT=http://gpu:8080\nPORT=1234\nALLOWED_ORIGINS=http://localhost:3000\n"
    )
    done = run(tmp_path, "serve", "--check", "--json", PORT="4321")
    facts = json.loads(done.stdout)
    assert done.returncode == 0
    assert facts["models"] == {"gpt-2": ["http://gpu:8080"]}
    assert facts["settings"]["port"] == 4321
    assert facts["settings"]["allowed_origins"] == ["http://localhost:3000"]


def test_a_bad_registry_is_refused_with_every_problem(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text("version: 1\nmodels:\n  m: {polcy: x, endpoints: [{id: a}]}\n")
    done = run(tmp_path, "serve", "--registry", "r.yml", "--port", "0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Error: r.yml is no valid registry: 3 problems"
    assert "model m: polcy: is unknown, did you mean 'policy'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_to_serve(tmp_path: Path) -> None:
    done = run(tmp_path, "serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert "give a registry (--registry FILE) or set TGI_<NAME>_ENDPOINT" in done.stderr


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(GOOD)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(tmp_path, "serve", "--registry", "r.yml", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: 127.0.0.1:{port} is in use by another program; "
        "stop that one or choose another port with --port\n"
    )


def test_bad_flags_are_usage_errors(tmp_path: Path) -> None:
    assert run(tmp_path, "serve", "--no-such-flag").returncode == 2
    done = run(tmp_path, "serve", "--port", "http")
    assert done.returncode == 1
    assert "--port=http: must be a whole number" in done.stderr


@pytest.mark.parametrize("row", settings_table(), ids=lambda row: row.name)
def test_help_names_every_setting(row: Setting, help_text: str) -> None:
    assert row.flag in help_text


@pytest.fixture(scope="module")
def help_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    return run(tmp_path_factory.mktemp("help"), "serve", "--help", COLUMNS="200").stdout
