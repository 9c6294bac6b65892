"""From containers and other tools' files to an inventory that the check finds nothing wrong with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from modelyard.cli.imports import READERS
from modelyard.cli.main import main
from modelyard.inventory import check_files, wish_digest
from modelyard.registry.load import load_file

from ..ansible_inventory import problems
from . import samples
from .samples import COMMIT, TGI, TOKEN, container, inspected


def run(kind: str, text: str, directory: Path, *options: str) -> tuple[Result, Path]:
    source, target = directory / "input", directory / "inventory"
    source.write_text(text)
    arguments = ["import", kind, str(source), "-o", str(target), *options]
    return CliRunner().invoke(main, arguments), target


def imported(kind: str, text: str, directory: Path, *options: str) -> tuple[dict[str, Any], Path]:
    done, target = run(kind, text, directory, "--json", *options)
    assert done.exit_code == 0, done.output
    return json.loads(done.output), target


def models(target: Path) -> dict[str, dict[str, Any]]:
    document = yaml.safe_load((target / "group_vars/all/models.yml").read_text())
    return {model["id"]: model for model in document["models"]}


def everything(target: Path) -> str:
    return "".join(path.read_text() for path in target.rglob("*") if path.is_file())


def test_equal_containers_are_replicas_of_one_model_and_adopted(tmp_path: Path) -> None:
    args = [
        "Qwen/Qwen2.5-7B-Instruct",
        "--max-model-len",
        "8192",
        "--gpu-memory-utilization",
        "0.90",
        "--enforce-eager",
    ]
    text = inspected(container("vllm-0", args), container("vllm-1", args, port=8001), TGI)
    report, target = imported("docker", text, tmp_path)
    found = models(target)
    assert found["qwen2.5-7b-instruct"] == {
        "id": "qwen2.5-7b-instruct",
        "source": {"hub": "Qwen/Qwen2.5-7B-Instruct"},
        "engine": "vllm",
        "image": "vllm/vllm-openai:v0.32.0",
        "placement": {"hosts": "localhost", "replicas": 2, "gpus": 1},
        # 0.90 as a number would become another word
        "args": {"max_model_len": 8192, "gpu_memory_utilization": "0.90", "enforce_eager": True},
        "routing": {"aliases": ["Qwen/Qwen2.5-7B-Instruct"]},
        "adopt": [
            {"host": "localhost", "container": name, "port": port, "served_name": "Qwen/Qwen2.5-7B-Instruct",
             "wish": wish_digest(found["qwen2.5-7b-instruct"])}
            for name, port in (("vllm-0", 8000), ("vllm-1", 8001))
        ],
    }  # fmt: skip
    assert report["adopted"] == ["vllm-0", "vllm-1", "tgi-old"]
    host = yaml.safe_load((target / "hosts.yml").read_text())["all"]["children"]["engine_hosts"]["hosts"]
    assert host["localhost"] == {
        "ansible_connection": "local",
        "fleet_accelerator": "nvidia",
        "fleet_gpus": 4,
        "fleet_address": "127.0.0.1",
    }
    # an engine has the proxy's usual port
    assert yaml.safe_load((target / "group_vars/all/fleet.yml").read_text())["fleet_proxy_port"] == 8080


def test_tgi_with_its_environment_and_a_mounted_model(tmp_path: Path) -> None:
    report, target = imported("docker", inspected(TGI), tmp_path)
    assert models(target)["llama"] == {
        "id": "llama",
        "source": {"path": "/srv/models/llama"},
        "engine": "tgi",
        "image": "ghcr.io/huggingface/text-generation-inference:3.3.7",
        "placement": {"hosts": "localhost", "replicas": 1, "gpus": 2},
        "args": {"max_total_tokens": 4096, "quantize": "awq"},
        "env": {"HF_TOKEN": "{{ vault_hf_token }}"},
        "resources": {"memory": "64g", "shm_mib": 4096},
        "adopt": [{"host": "localhost", "container": "tgi-old", "port": 8081, "served_name": "/data/llama",
                   "wish": wish_digest(models(target)["llama"])}],
    }  # fmt: skip
    assert report["secrets"] == {"vault_hf_token": ["container tgi-old: HF_TOKEN"]}
    assert "vault_hf_token: ''" in (target / "group_vars/all/vault.yml").read_text()
    said = "\n".join(report["remarks"])
    for remark in ("every address of the host", "privileged", "IPC namespace", "no restart policy"):
        assert remark in said


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("docker", inspected(TGI, container("b", ["org/b", "--hf-token", TOKEN, "--api-key", "sk-verysecretkey0"]))),
        ("compose", samples.COMPOSE),
        ("litellm", samples.LITELLM),
        ("llama-swap", samples.LLAMA_SWAP),
        ("production-stack", samples.VALUES),
    ],
)  # fmt: skip
def test_no_secret_is_written_and_the_check_finds_nothing(kind: str, text: str, tmp_path: Path) -> None:
    report, target = imported(kind, text, tmp_path)
    written = everything(target) + json.dumps(report)
    for secret in (TOKEN, "sk-verysecretkey0", "sk-1234567890abcdef", "sk-master", "sk-key", "secretpass"):
        assert secret not in written
    assert [str(problem) for problem in check_files(target)] == []
    assert [str(problem) for problem in problems(target)] == []


def test_what_is_no_engine_is_told(tmp_path: Path) -> None:
    text = inspected(
        container("ok", ["org/m"]),
        container("web", [], Path="nginx", Args=["-g", "daemon off;"], Config={"Image": "nginx:1"}),
        container("sg", [], Path="python3", Args=["-m", "sglang.launch_server"], Config={"Image": "lmsysorg/sglang"}),
        container("gone", ["org/m"], State={"Status": "exited"}),
        container("ours", ["org/m"], Config={"Labels": {"modelyard.replica": "a.m.0", "modelyard.fleet": "f"}}),
        container("nameless", ["--max-model-len", "5"]),
    )  # fmt: skip
    report, _ = imported("docker", text, tmp_path)
    assert report["adopted"] == ["ok"]
    said = "\n".join(report["skipped"])
    assert "container web: it runs no engine that is known here (image nginx:1)" in said
    assert "container sg: SGLang is no engine that Modelyard runs" in said
    assert "container gone: does not run (exited)" in said
    assert "container ours: is a replica of the fleet f already" in said
    assert "container nameless: its command line does not say which model" in said


def test_what_cannot_be_reached_is_not_adopted_and_not_started_beside_it(tmp_path: Path) -> None:
    hidden = container("hidden", ["org/a"], NetworkSettings={"Ports": {"8000/tcp": None}})
    public = container("public", ["org/b"])
    inner = container("inner", ["org/c"])
    public["NetworkSettings"]["Ports"]["8000/tcp"][0]["HostIp"] = "10.0.0.5"
    report, target = imported("docker", inspected(hidden, public, inner), tmp_path, "--address", "10.0.0.5")
    found = models(target)
    assert report["adopted"] == ["public"]
    assert found["a"]["placement"]["replicas"] == 0
    assert found["c"]["placement"]["replicas"] == 0
    assert "adopt" not in found["a"]
    said = "\n".join(report["remarks"])
    assert "its port 8000 is not published" in said
    assert "listens on 127.0.0.1 alone, and proxies come to 10.0.0.5" in said
    assert any("its container runs and cannot be adopted" in step for step in report["next"])


def test_the_network_of_the_host_and_a_shell(tmp_path: Path) -> None:
    item = container(
        "h", [], Path="/bin/bash", Args=["-c", "export A=1 && exec vllm serve org/m --port 9000 -tp 2"]
    )
    item["HostConfig"]["NetworkMode"] = "host"
    item["HostConfig"]["DeviceRequests"] = [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]
    _, target = imported("docker", inspected(item), tmp_path, "--gpus", "4")
    model = models(target)["m"]
    assert model["adopt"][0]["port"] == 9000
    assert model["placement"]["gpus"] == 2
    assert "fleet_gpus: 4" in (target / "hosts.yml").read_text()


def test_arguments_come_back_as_they_were_given(tmp_path: Path) -> None:
    args = ["--model=org/m", "--served-model-name", "chat", "org/m-long", "--lora-modules", "a=/a", "b=/b",
            "--no-enable-prefix-caching", "--override_generation_config", '{"top_p": 0.5}', "--seed", "-1",
            "--chat-template", "{{ x }}", "--revision", COMMIT, "--host", "0.0.0.0",
            "--json.dotted", "1", "-q", "awq"]  # fmt: skip
    report, target = imported("docker", inspected(container("a", args)), tmp_path)
    model = models(target)["chat"]
    assert model["args"] == {
        "lora_modules": ["a=/a", "b=/b"],
        "enable_prefix_caching": False,
        "override_generation_config": {"top_p": 0.5},
        "seed": -1,
        "chat_template": "{% raw %}{{ x }}{% endraw %}",
        "quantization": "awq",
    }
    assert model["source"] == {"hub": "org/m", "revision": COMMIT}
    assert model["routing"]["aliases"] == ["org/m-long"]
    assert any("--json.dotted cannot be written" in remark for remark in report["remarks"])
    # what Ansible renders has the digest that stands beside the container
    rendered = {**model, "args": {**model["args"], "chat_template": "{{ x }}"}}
    assert model["adopt"][0]["wish"] == wish_digest(rendered)


def test_the_digest_tells_a_changed_wish_and_nothing_of_a_secret() -> None:
    wish: dict[str, Any] = {"id": "a", "engine": "vllm", "args": {"x": 1}, "env": {"HF_TOKEN": "a", "B": "1"}}
    same = {**wish, "id": "b", "name": "Other", "routing": {"weight": 2}, "env": {"HF_TOKEN": "z", "B": "1"}}
    assert wish_digest(wish) == wish_digest(same)
    for change in (
        {"args": {"x": 2}},
        {"env": {"HF_TOKEN": "a", "B": "2"}},
        {"image": "i"},
        {"placement": {"gpus": 2}},
    ):
        assert wish_digest({**wish, **change}) != wish_digest(wish)


def test_nothing_of_a_container_becomes_a_template(tmp_path: Path) -> None:
    evil = "{{ lookup('pipe', 'id') }}"
    arguments = ["org/a", "--hf-token", evil, "more", "--seed-key", evil, "--served-model-name", evil]
    _, target = imported("docker", inspected(container("a", arguments)), tmp_path)
    lines = [line for line in everything(target).splitlines() if not line.startswith("#")]
    assert evil not in "\n".join(lines).replace("{% raw %}" + evil + "{% endraw %}", "")


def test_a_compose_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LENGTH=2048\n")
    report, target = imported("compose", samples.COMPOSE, tmp_path, "--gpus", "2")
    found = models(target)
    assert found["chat"]["args"] == {"max_model_len": 2048, "enforce_eager": True}
    assert found["chat"]["placement"] == {"hosts": "localhost", "replicas": 2, "gpus": 1}
    assert found["chat"]["env"] == {"HF_TOKEN": "{{ vault_hf_token }}", "VLLM_LOGGING_LEVEL": "WARNING"}
    assert found["chat"]["resources"] == {"shm_mib": 16384}
    assert found["chat"]["routing"] == {"aliases": ["default"]}
    # no commit, and both GPUs are given
    assert found["small"]["placement"]["replicas"] == 0
    assert found["small"]["args"] == {"kv_transfer_config": {"kv_role": "kv_both"}}
    assert any("HTTPS_PROXY is left out" in remark for remark in report["remarks"])
    assert any("service other" in line and "SGLang" in line for line in report["skipped"])
    assert any("git ls-remote https://huggingface.co/org/small HEAD" in step for step in report["next"])


def test_litellm_gives_a_registry_that_serves_at_once(tmp_path: Path) -> None:
    report, target = imported("litellm", samples.LITELLM, tmp_path)
    registry = load_file(target / "endpoints.yml")
    chat = registry.models["chat"]
    assert [(item.url, item.served_name, item.weight) for item in chat.endpoints] == [
        ("http://10.0.0.11:8000", "Qwen/Qwen2.5-7B-Instruct", 2.0),
        ("http://10.0.0.12:8000", "Qwen/Qwen2.5-7B-Instruct", 1.0),
    ]
    assert chat.aliases == ("default",)
    assert chat.fallbacks == ("tgi",)
    assert registry.models["embed"].task == "embed"
    assert registry.models["tgi"].endpoints[0].engine == "tgi"
    said = "\n".join([*report["skipped"], *report["remarks"]])
    for remark in ("gpt-4o: openai is a hosted service", "alias nowhere", "may want a key", "keys and users"):
        assert remark in said


def test_llama_swap_knows_docker_run_and_takes_turns(tmp_path: Path) -> None:
    report, target = imported("llama-swap", samples.LLAMA_SWAP, tmp_path)
    found = models(target)
    assert found["qwen"]["placement"] == {"hosts": "localhost", "replicas": 1, "gpus": 2}
    assert found["qwen"]["args"] == {"max_model_len": 4096}
    assert found["qwen"]["routing"]["aliases"] == ["Qwen/Qwen2.5-7B-Instruct", "gpt-4"]
    assert found["qwen"]["env"] == {"HF_TOKEN": "{{ vault_hf_token }}"}
    assert found["local"]["source"] == {"path": "/srv/models/tiny"}
    assert found["local"]["placement"]["replicas"] == 0  # both GPUs are the other's
    assert any("model gguf" in line and "llama.cpp" in line for line in report["skipped"])
    assert any("ttl" in remark for remark in report["remarks"])


def test_production_stack_values_and_backends(tmp_path: Path) -> None:
    report, target = imported("production-stack", samples.VALUES, tmp_path)
    model = models(target)["llama-3.1-8b-instruct"]
    assert model["args"] == {
        "enable_chunked_prefill": False,
        "max_model_len": 4096,
        "disable_log_requests": True,
        "gpu_memory_utilization": 0.8,
    }
    assert model["placement"] == {"hosts": "localhost", "replicas": 2, "gpus": 1}
    assert model["resources"] == {"memory": "32g"}
    registry = load_file(target / "endpoints.yml")
    assert [item.url for item in registry.models["a"].endpoints] == [
        "http://10.0.0.1:8000",
        "http://10.0.0.2:8000",
    ]
    assert registry.models["a"].aliases == ("org/a",)
    assert any("vllmConfig.somethingNew" in remark for remark in report["remarks"])


def test_the_routers_own_list(tmp_path: Path) -> None:
    text = json.dumps({"service_discovery": "static", "static_backends": "http://h:1", "static_models": "m"})
    _, target = imported("production-stack", text, tmp_path)
    assert load_file(target / "endpoints.yml").models["m"].endpoints[0].url == "http://h:1"


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("docker", "[\n{,", "input:2: is no JSON"),
        ("docker", "{}", "holds no list of containers"),
        ("docker", '[{"Id": "x"}]', "entry 1 is no container"),
        ("compose", "services:\n  a: [\n", "input:3: is no YAML"),
        ("compose", "a: 1\n", "has a mapping `services`"),
        ("compose", "x: 1\nservices:\n  a: 3\n", "input:3: the service a is no mapping"),
        ("litellm", "model_list: 3\n", "input:1: LiteLLM's configuration has a list"),
        ("litellm", "model_list:\n  - {}\n", "input:2: an entry of model_list"),
        ("llama-swap", "models:\n  a:\n    ttl: 1\n", "input:2: the model a has no cmd"),
        ("production-stack", "a: 1\n", "neither servingEngineSpec.modelSpec"),
        ("production-stack", "static_backends: 'http://a:1,http://b:1'\nstatic_models: m\n", "2 backends and 1 models"),
        ("production-stack", "servingEngineSpec:\n  modelSpec:\n    - name: x\n", "input:3: an entry of modelSpec"),
        ("compose", "", "must hold a mapping"),
        ("docker", "[]", "nothing in it that can be taken over"),
    ],
)  # fmt: skip
def test_broken_input_is_told_with_file_and_line(kind: str, text: str, says: str, tmp_path: Path) -> None:
    done, target = run(kind, text, tmp_path)
    assert done.exit_code == 1
    assert says in done.output
    assert not target.exists()


def test_an_inventory_that_is_there_stays(tmp_path: Path) -> None:
    text = inspected(container("a", ["org/m"]))
    _, target = imported("docker", text, tmp_path)
    (target / "hosts.yml").write_text("# mine\n")
    (target / "group_vars/all/own.yml").write_text("x: 1\n")
    done, _ = run("docker", text, tmp_path)
    assert done.exit_code == 1
    assert "--force" in done.output
    assert (target / "hosts.yml").read_text() == "# mine\n"
    imported("docker", text, tmp_path, "--force")
    assert "engine_hosts" in (target / "hosts.yml").read_text()
    assert (target / "group_vars/all/own.yml").read_text() == "x: 1\n"


def test_another_host_needs_an_address(tmp_path: Path) -> None:
    done, _ = run("compose", samples.COMPOSE, tmp_path, "--host", "gpu01")
    assert done.exit_code == 1
    assert "--address" in done.output
    done, _ = run("compose", samples.COMPOSE, tmp_path, "--host", "gpu01", "--address", "gpu01")
    assert "is no IP address" in done.output
    _, target = imported("compose", samples.COMPOSE, tmp_path, "--host", "gpu01", "--address", "10.0.0.1")
    assert "ansible_host: 10.0.0.1" in (target / "hosts.yml").read_text()


def test_what_it_did_is_shown(tmp_path: Path) -> None:
    done, target = run("compose", samples.COMPOSE, tmp_path)
    for part in (
        f"Written to {target}",
        "Not taken over",
        "Remarks",
        "What to do next",
        "ansible-vault encrypt",
    ):
        assert part in done.output


def test_the_command_reads_every_kind() -> None:
    assert list(READERS) == ["docker", "compose", "litellm", "llama-swap", "production-stack"]
