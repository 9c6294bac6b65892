"""The registry for other programs: what each format says, and that its own program takes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from modelyard.cli.main import main
from modelyard.errors import ConfigError
from modelyard.inventory import fleet_schema
from modelyard.registry.exports import FORMATS, export
from modelyard.registry.load import load_text
from tests.parts.debian import Absent, program

REGISTRY = """
version: 1
generation: 7
models:
  chat:
    aliases: [default, org/chat]
    fallbacks: [small]
    policy: least_loaded
    timeouts: {connect_s: 2, first_byte_s: 90, idle_s: 30}
    queue: {size: 8, wait_s: 4}
    clients: [alice]
    limits: {max_tokens: 100}
    endpoints:
      - {id: gpu01.chat.0, url: "http://192.0.2.1:8100", engine: vllm, weight: 2, host: gpu01, max_in_flight: 9}
      - {id: gpu02.chat.0, url: "https://engine.example", engine: vllm, served_name: org/Chat}
      - {id: gpu03.chat.0, url: "http://[2001:db8::1]:8100", engine: vllm, state: draining}
      - {id: gpu04.chat.0, url: "http://192.0.2.4:8100", engine: vllm, state: disabled}
      - {id: gpu05.chat.0, url: "http://192.0.2.5:8100", engine: vllm, tier: 1}
      - {id: gpu06.chat.0, url: "http://192.0.2.6:8100/tenant", engine: vllm}
  empty:
    endpoints: []
  rank:
    task: rerank
    policy: power_of_two
    canary_percent: 10
    endpoints:
      - {id: gpu01.rank.0, url: "http://192.0.2.1:8200", engine: vllm, weight: 0.5}
      - {id: gpu01.rank.1, url: "http://192.0.2.1:8201", engine: vllm, track: canary}
  small:
    policy: round_robin
    endpoints:
      - {id: gpu01.small.0, url: "http://192.0.2.1:8300", engine: tgi}
"""


def text(form: str, *only: str, registry: str = REGISTRY) -> str:
    return export(load_text(registry, "endpoints.yml"), form, only)


def _command(name: str) -> list[str]:
    try:
        return program(name).command
    except Absent as exc:
        pytest.skip(f"{name} is {exc}")


# both look names up when they start: their tests replace engine.example
def haproxy_takes(snippet: str, directory: Path) -> subprocess.CompletedProcess[str]:
    base = directory / "haproxy.cfg"
    base.write_text(
        "defaults\n    mode http\n    timeout client 60s\n"
        "frontend in\n    bind 127.0.0.1:8000\n    default_backend modelyard_chat\n"
    )
    (directory / "modelyard.cfg").write_text(snippet)
    command = [*_command("haproxy"), "-c", "-f", str(base), "-f", str(directory / "modelyard.cfg")]
    return subprocess.run(command, capture_output=True, text=True)


def nginx_takes(snippet: str, directory: Path) -> subprocess.CompletedProcess[str]:
    (directory / "modelyard.conf").write_text(snippet)
    base = directory / "nginx.conf"
    base.write_text(
        f"pid {directory}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; include {directory}/modelyard.conf; }}\n"
    )
    return subprocess.run([*_command("nginx"), "-t", "-c", str(base)], capture_output=True, text=True)


def test_haproxy_says_who_is_used_how() -> None:
    said = text("haproxy")
    assert "backend modelyard_chat\n    balance leastconn" in said
    assert "timeout connect 2000ms\n    timeout server 90000ms\n    timeout queue 4000ms" in said
    assert "http-check send meth GET uri /health" in said
    assert "server gpu01.chat.0 192.0.2.1:8100 weight 2 maxconn 9\n" in said
    assert "server gpu02.chat.0 engine.example:443 weight 1 ssl verify required" in said
    assert "server gpu03.chat.0 [2001:db8::1]:8100 weight 0\n" in said
    assert "server gpu04.chat.0 192.0.2.4:8100 weight 0 disabled" in said
    assert "server gpu05.chat.0 192.0.2.5:8100 weight 1 backup" in said
    # nine tenths and a tenth
    assert "192.0.2.1:8200 weight 90" in said
    assert "192.0.2.1:8201 weight 10" in said


@pytest.mark.parametrize("form", ["haproxy", "nginx"])
def test_what_a_balancer_cannot_say_is_said_beside_it(form: str) -> None:
    said = text(form)
    assert "# gpu06.chat.0: left out, it answers below the path /tenant" in said
    assert "# chat: clients are not kept out" in said
    assert "# chat: its replicas want the model name org/Chat in requests" in said
    assert "192.0.2.6" not in said


def test_haproxy_takes_it(tmp_path: Path) -> None:
    done = haproxy_takes(text("haproxy").replace("engine.example", "localhost"), tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr


def test_nginx_says_who_is_used_how() -> None:
    said = text("nginx")
    assert "server 192.0.2.1:8100 weight=2 max_conns=9;" in said
    assert "server [2001:db8::1]:8100 down;  # gpu03.chat.0, draining" in said
    assert "server 192.0.2.4:8100 down;  # gpu04.chat.0, disabled" in said
    assert "server 192.0.2.5:8100 backup;" in said
    assert "random two least_conn;" in text("nginx", "rank")
    assert "least_conn" not in text("nginx", "small")
    assert "# chat: its replicas speak https, but not all of them" in said


def test_nginx_takes_it(tmp_path: Path) -> None:
    done = nginx_takes(text("nginx").replace("engine.example", "localhost"), tmp_path)
    assert done.returncode == 0, done.stderr


def test_file_sd_keeps_all_and_labels_their_state() -> None:
    groups = json.loads(text("file_sd"))
    by_id = {group["labels"]["replica"]: group for group in groups}
    assert len(by_id) == 9
    assert by_id["gpu01.chat.0"] == {
        "targets": ["192.0.2.1:8100"],
        "labels": {
            "__metrics_path__": "/metrics",
            "__scheme__": "http",
            "engine": "vllm",
            "host": "gpu01",
            "model": "chat",
            "replica": "gpu01.chat.0",
            "state": "active",
            "task": "generate",
        },
    }
    assert by_id["gpu03.chat.0"]["labels"]["state"] == "draining"
    assert by_id["gpu06.chat.0"]["labels"]["__metrics_path__"] == "/tenant/metrics"
    assert all(isinstance(value, str) for group in groups for value in group["labels"].values())


def test_litellm_names_the_active_ones() -> None:
    document = yaml.safe_load(text("litellm"))
    ids = [entry["model_info"]["id"] for entry in document["model_list"]]
    assert "gpu03.chat.0" not in ids
    assert "gpu04.chat.0" not in ids
    assert document["model_list"][0] == {
        "model_name": "chat",
        "litellm_params": {
            "model": "openai/chat",
            "api_base": "http://192.0.2.1:8100/v1",
            "api_key": "none",
            "weight": 2,
            "max_parallel_requests": 9,
            "order": 1,
        },
        "model_info": {"id": "gpu01.chat.0", "mode": "chat"},
    }
    rank = next(entry for entry in document["model_list"] if entry["model_name"] == "rank")
    assert rank["litellm_params"]["model"] == "hosted_vllm/rank"
    assert rank["model_info"]["mode"] == "rerank"
    assert document["router_settings"] == {
        "model_group_alias": {"default": "chat", "org/chat": "chat"},
        "fallbacks": [{"chat": ["small"]}],
    }


def test_llm_d_gets_literal_addresses_alone() -> None:
    said = text("llm_d", "chat")
    assert yaml.safe_load(said) == {
        "endpoints": [
            {
                "name": f"gpu0{number}.chat.0",
                "address": f"192.0.2.{number}",
                "port": "8100",
                "labels": {"model": "chat", "engine": "vllm"},
            }
            for number in (1, 5)
        ]
    }
    assert "# gpu02.chat.0: left out" in said
    assert "several models" in text("llm_d")


def test_the_generation_changes_no_file() -> None:
    newer = REGISTRY.replace("generation: 7", "generation: 8")
    assert all(text(form) == text(form, registry=newer) for form in FORMATS)


def test_unknown_models_and_formats_are_named() -> None:
    with pytest.raises(ConfigError, match="no model 'chatt'; it has chat, empty"):
        text("haproxy", "chatt")
    with pytest.raises(ConfigError, match="haproxy, nginx"):
        text("apache")


def test_the_inventory_knows_every_format() -> None:
    rule = fleet_schema()["properties"]["fleet_registry_exports"]
    assert rule["items"]["properties"]["format"]["enum"] == list(FORMATS)


NASTY = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]) | st.sampled_from("\n\r\t;{}\"'#\\$ \u2028"),
    min_size=1,
    max_size=40,
)


@given(NASTY, NASTY)
def test_no_value_breaks_out_of_a_syntax(name: str, path: str) -> None:
    quoted = "".join(sign for sign in path if "!" <= sign <= "~" and sign not in "?#")
    document: dict[str, Any] = {
        "version": 1,
        "models": {
            "m": {
                "name": name,
                "endpoints": [
                    {"id": "a", "url": "http://192.0.2.1:1", "engine": "vllm", "served_name": name},
                    {"id": "b", "url": f"http://192.0.2.1:1/{quoted}", "engine": "vllm"},
                ],
            }
        },
    }
    try:
        registry = load_text(json.dumps(document), "endpoints.yml")
    except ConfigError:
        return  # refused whole, so never exported
    for form in ("haproxy", "nginx"):
        for line in export(registry, form).split("\n"):
            kept = line.split("#")[0].strip()
            assert not kept or kept.split()[0] in (
                "backend", "balance", "timeout", "option", "http-check", "default-server", "server",
                "upstream", "zone", "least_conn;", "keepalive", "}",
            )  # fmt: skip
        assert export(registry, form).count("\n    server ") in (1, 2)
    entries = yaml.safe_load(export(registry, "litellm"))["model_list"]
    assert entries[0]["litellm_params"]["model"] == f"openai/{name}"
    assert {item["name"] for item in yaml.safe_load(export(registry, "llm_d"))["endpoints"]} >= {"a"}
    json.loads(export(registry, "file_sd"))


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    registry, target = tmp_path / "endpoints.yml", tmp_path / "out.cfg"
    registry.write_text(REGISTRY)
    done = CliRunner().invoke(main, ["export", "haproxy", "--registry", str(registry)])
    assert done.exit_code == 0
    assert done.output == text("haproxy")
    target.write_text("old")
    target.chmod(0o600)
    arguments = ["export", "llm_d", "--registry", str(registry), "--model", "small", "-o", str(target)]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(done.output)["text"] == target.read_text() == text("llm_d", "small")
    assert target.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir() if item.name.startswith(".")] == []


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    registry = tmp_path / "endpoints.yml"
    registry.write_text("version: 1\nmodels: {A: {endpoints: []}}\n")
    done = CliRunner().invoke(main, ["export", "nginx", "--registry", str(registry)])
    assert done.exit_code == 1
    assert "endpoints.yml" in done.output
    assert "model A" in done.output
