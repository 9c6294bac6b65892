"""Launch specs: command lines, mounts, environment and hashes of the engines in the catalog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.flags import from_flags, to_flags
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.launch import (
    build,
    redacted,
    refusal,
    spec_hash,
    weights_path,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.planner.types import Host, Model, Slot, Source

from modelyard.catalog import load_engines

ENGINES = {name: engine.data for name, engine in load_engines().items()}
HOST = Host("gpu01", accelerator="nvidia", gpus=("0", "1"), address="192.0.2.11", container_user="1000:1000")
REVISION = "a" * 40


def model(engine: str = "vllm", **more: Any) -> Model:
    base: dict[str, Any] = {
        "id": "m",
        "name": "M",
        "task": "generate",
        "hosts": ("gpu01",),
        "pattern": "gpu01",
        "replicas": 1,
        "gpus": 1,
        "source": Source("hub", "org/m", REVISION),
    }
    return Model(engine=engine, **{**base, **more})


def spec_of(wished: Model, host: Host = HOST, gpus: tuple[str, ...] = ("0",)) -> dict[str, Any]:
    slot = Slot(wished.id, host.name, 0, gpus, 8101, host.runtime_of(wished))
    return build(wished, ENGINES[wished.engine], host, slot)


def test_vllm_in_a_container() -> None:
    spec = spec_of(model(args={"max_model_len": 8192, "enforce_eager": True}), gpus=("0", "1"))
    command = " ".join(spec["command"])
    assert command.startswith(
        "/weights --served-model-name m --host 0.0.0.0 --port 8000 --tensor-parallel-size 2"
    )
    assert command.endswith("--enforce-eager --max-model-len 8192")
    assert "--revision" not in command
    assert spec["executable"] == []
    assert spec["env"]["HF_HUB_OFFLINE"] == "1"
    assert spec["publish"] == {"address": "192.0.2.11", "port": 8101, "container_port": 8000}
    assert spec["url"] == "http://192.0.2.11:8101"
    assert spec["shm_mib"] == 1024 + 2 * 4096
    assert spec["mounts"] == [
        {"source": f"/var/lib/modelyard/weights/org--m@{'a' * 12}", "target": "/weights", "read_only": True},
        {"source": "/var/lib/modelyard/cache/vllm", "target": "/cache", "read_only": False},
    ]
    assert "http://127.0.0.1:8000/health" in spec["health_command"]


def test_the_engines_own_grace_is_below_the_stop_timeout() -> None:
    for name in ("vllm", "tgi"):
        spec = spec_of(model(name))
        flags = from_flags(spec["command"])
        grace = flags.get("shutdown_timeout") or flags["graceful_termination_timeout"]
        assert int(grace) < spec["stop_timeout_s"]


def test_engines_that_share_a_hosts_cores_are_not_pinned_to_the_same_ones() -> None:
    on_cpu = replace(HOST, accelerator="cpu", gpus=())
    assert spec_of(model(gpus=0), on_cpu, gpus=())["env"]["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    own = model(gpus=0, env={"VLLM_CPU_OMP_THREADS_BIND": "0-31"})
    assert spec_of(own, on_cpu, gpus=())["env"]["VLLM_CPU_OMP_THREADS_BIND"] == "0-31"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in spec_of(model())["env"]


def test_echo_as_a_process_binds_the_hosts_address() -> None:
    host = replace(HOST, runtime="process", python="/venv/bin/python", cache_dir="/home/me/cache")
    spec = spec_of(model("echo", source=None, gpus=0), host, ())
    assert spec["executable"] == ["/venv/bin/python", "-m", "modelyard", "echo"]
    assert from_flags(spec["command"])["host"] == "192.0.2.11"
    assert from_flags(spec["command"])["port"] == "8101"
    assert (spec["image"], spec["mounts"], spec["health_command"]) == (None, [], None)


def test_paths_inside_the_container_become_the_hosts_own_in_a_process() -> None:
    host = replace(HOST, runtime="process", cache_dir="/home/me/cache")
    spec = spec_of(model("vllm"), host)
    assert spec["env"]["VLLM_CACHE_ROOT"] == "/home/me/cache/vllm/vllm"
    assert spec["command"][0] == f"/var/lib/modelyard/weights/org--m@{'a' * 12}"


@pytest.mark.parametrize(
    ("source", "path"),
    [
        (Source("path", "/srv/x"), "/srv/x"),
        (Source("hub", "org/x", REVISION), "/w/org--x@aaaaaaaaaaaa"),
        (Source("url", "https://e.example/a/x-1.0.tar.gz?k=v", "b" * 64), "/w/x-1.0@bbbbbbbbbbbb"),
        (Source("url", "https://e.example/x.gguf", "b" * 64), "/w/x@bbbbbbbbbbbb/x.gguf"),
        (None, None),
    ],
)
def test_weights_path(source: Source | None, path: str | None) -> None:
    assert weights_path(source, "/w") == path


def test_a_single_file_is_mounted_with_its_directory() -> None:
    spec = spec_of(model(source=Source("url", "https://e.example/x.gguf", "b" * 64)))
    assert spec["command"][0] == "/weights/x.gguf"
    assert spec["mounts"][0]["source"].endswith("/x@bbbbbbbbbbbb")


def test_every_part_of_a_spec_counts_for_the_hash_and_secrets_show_as_digests() -> None:
    one, two = spec_of(model(env={"T": "a"})), spec_of(model(env={"T": "b"}))
    assert spec_hash(one) != spec_hash(two)
    assert spec_hash(one) == spec_hash(spec_of(model(env={"T": "a"})))
    shown = redacted(one)
    assert shown["env"]["T"].startswith("sha256:")
    assert redacted(shown) == shown
    assert one["env"]["T"] == "a"


def test_image_comes_from_the_model_then_the_fleet_then_the_catalog() -> None:
    fleet = replace(HOST, images={"vllm": {"nvidia": "own/vllm:1"}})
    assert spec_of(model(image="mine:1"), fleet)["image"] == "mine:1"
    assert spec_of(model(), fleet)["image"] == "own/vllm:1"
    assert spec_of(model())["image"] == ENGINES["vllm"]["images"]["nvidia"]


def test_read_only_only_where_the_engine_and_the_host_allow_it() -> None:
    assert spec_of(model("vllm"))["read_only"] is True
    assert spec_of(model("tgi"))["read_only"] is False
    assert spec_of(model("vllm"), replace(HOST, read_only=False))["read_only"] is False


def test_ipv6_address_in_the_url() -> None:
    assert spec_of(model(), replace(HOST, address="2001:db8::1"))["url"] == "http://[2001:db8::1]:8101"


@pytest.mark.parametrize(
    ("wished", "host", "reason"),
    [
        (model(), HOST, None),
        (
            model("tgi"),
            replace(HOST, runtime="process"),
            "would run it as process, and tgi runs only in docker",
        ),
        (model("echo", source=None), HOST, "needs an image of echo for nvidia"),
        (model(), replace(HOST, docker="unknown"), "has a Docker daemon that does not answer"),
        (
            model(),
            replace(HOST, docker="absent"),
            "has no docker command: site.yml and hosts.yml install Docker",
        ),
        # a check of a run that installs it
        (model(), replace(HOST, docker="foreseen"), None),
    ],
)
def test_refusal(wished: Model, host: Host, reason: str | None) -> None:
    assert refusal(wished, ENGINES[wished.engine], host) == reason


def test_arguments_become_flags() -> None:
    rules = ENGINES["vllm"]["arguments"]
    args = {"b": False, "a_b": True, "n": 0.9, "l": [1, 2], "m": {"x": 1}, "s": "text"}
    assert to_flags(args, rules) == [
        *("--a-b", "--no-b", "--l", "1", "2"),
        *("--m", '{"x":1}', "--n", "0.9", "--s", "text"),
    ]
    assert to_flags({"b": False}, ENGINES["tgi"]["arguments"]) == []


def test_flags_can_be_read_back() -> None:
    words = ["/weights", "--max-model-len", "8", "--eager", "--no-cache", "--x=1,2"]
    assert from_flags(words) == {
        "command": "/weights",
        "max_model_len": "8",
        "eager": "true",
        "cache": "false",
        "x": "1,2",
    }
