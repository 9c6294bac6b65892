"""`modelyard fit`: paths and ids, GPUs of an inventory and of none, the verdict in words, JSON and the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.unit.sizing.published import LLAMA_3_8B, LLAMA_3_70B

from modelyard.cli import fit_inputs
from modelyard.cli.fit_inputs import Fleet, gpus_of, model_path, wished
from modelyard.cli.main import main
from modelyard.cli.playbooks import Outcome
from modelyard.errors import ConfigError


def fit(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(main, ["fit", *words])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(LLAMA_3_8B))
    return tmp_path / "small"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(json.dumps(LLAMA_3_70B))
    return tmp_path / "large"


def inventory(monkeypatch: pytest.MonkeyPatch, models: list[dict[str, Any]], **problem: Any) -> None:
    capacity = {
        "hosts": [
            {"host": "gpu01", "gpus": 8, "memory_gib": 79.6},
            {"host": "gpu02", "gpus": 2, "memory_gib": 23.6},
            {"host": "gpu03", "gpus": 4, "memory_gib": None},
        ],
        "models": models,
    }
    result = problem or {"kind": "check", "problems": [], "capacity": capacity}
    outcome = Outcome("successful", result, (), "")
    monkeypatch.setattr(fit_inputs, "run_verb", lambda *_, **__: outcome)


def model(path: Path | None, **change: Any) -> dict[str, Any]:
    return {
        "id": "big", "engine": "vllm", "loads_weights": True, "source": {"path": str(path)} if path else None,
        "hosts": ["gpu01", "gpu02"], "gpus": 2, "args": {"max_model_len": 4096}, **change,
    }  # fmt: skip


def test_what_a_model_needs(small: Path) -> None:
    done = fit(str(small))
    assert done.exit_code == 0, done.output
    for part in (
        "15.0 GiB",
        "1.0 GiB",
        "128 KiB for each token",
        "counted from config.json",
        "No GPUs were named",
    ):
        assert part in done.output


def test_gpus_without_an_inventory(small: Path) -> None:
    done = fit(
        str(small / "config.json"), "--gpu", "l40s:44.5x2", "--gpu", "old:10", "--max-model-len", "4096"
    )
    assert done.exit_code == 0, done.output
    assert "l40s: fits on 1 GPU:" in done.output
    assert "old: needs" in done.output
    assert fit(str(small), "--gpu", "old:10").exit_code == 2


def test_a_share_that_no_gpu_has_and_other_bad_input(small: Path) -> None:
    for words in (
        ("--gpu", "a:80", "--gpu-memory-utilization", "1.5"),
        ("--gpu-memory-utilization", "nan"),
        ("--gpu", "a"), ("--gpu", "a:80x0"), ("--gpu", "a:80x9999999999"), ("--gpu", "a:0"),
        ("--concurrency", "0"), ("--max-model-len", "-5"), ("--tensor-parallel", "3"), ("--tensor-parallel", "0"),
    ):  # fmt: skip
        done = fit(str(small), *words)
        assert done.exit_code == 1, (words, done.output)
        assert done.output.startswith("Error: ")
    assert json.loads(fit(str(small), "--concurrency", "0", "--json").output)["error"].startswith(
        "The concurrency"
    )


def test_a_model_of_the_inventory(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    inventory(monkeypatch, [model(large)])
    done = fit("big", "-i", "anywhere")
    assert done.exit_code == 0, done.output
    assert "gpu01: fits on 2 GPUs:" in done.output
    assert "gpu02: needs" in done.output
    assert "gpu03: big may not be placed there." in done.output


GIB = 2**30


def seen_gpus(*gib: float, unwell: int = 0) -> dict[str, Any]:
    """What a deploy remembers of a host's GPUs."""
    return {
        str(at): {"memory": int(size * GIB), "unwell": "hot" if at < unwell else ""}
        for at, size in enumerate(gib)
    }


def hosts_seen(monkeypatch: pytest.MonkeyPatch, item: dict[str, Any], **seen: dict[str, Any]) -> None:
    capacity = {
        "hosts": [
            {"host": name, "gpus": len(gpus), "memory_gib": 1, "seen": gpus} for name, gpus in seen.items()
        ],
        "models": [{**item, "hosts": list(seen)}],
    }
    outcome = Outcome("successful", {"kind": "check", "problems": [], "capacity": capacity}, (), "")
    monkeypatch.setattr(fit_inputs, "run_verb", lambda *_, **__: outcome)


def fits(*words: str) -> dict[str, Any]:
    told = json.loads(fit("big", "-i", "anywhere", "--json", *words).output)
    return {one["host"]: one for one in told["hosts"]}


def test_gpus_that_were_seen_go_before_those_declared(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    hosts_seen(
        monkeypatch,
        model(small),
        alike=seen_gpus(44.5, 44.5),
        mixed=seen_gpus(10, 44.5, 44.5),
        few=seen_gpus(10, 44.5),
        ill=seen_gpus(44.5, 44.5, unwell=1),
        odd={"0": {"memory": None, "unwell": ""}, "1": {"memory": 44 * GIB, "unwell": ""}},
    )
    found = fits("--max-model-len", "4096")
    assert {name: one["fits"] for name, one in found.items()} == {
        "alike": True, "mixed": True, "few": False, "ill": False, "odd": False,
    }  # fmt: skip
    assert found["ill"]["reason"] == (
        "ill has 1 GPU well and 1 that is not, and the model is to be shared by 2."
    )


def test_what_is_declared_or_measured_goes_before_the_estimate(
    monkeypatch: pytest.MonkeyPatch, large: Path
) -> None:
    hosts = {"ten": seen_gpus(10, 10), "forty": seen_gpus(40, 40)}
    proof = {"used": 39 * GIB, "memory": 40 * GIB}
    for change, expected in (
        ({}, {"ten": False, "forty": False}),
        ({"gpu_memory_gib": 20}, {"ten": False, "forty": True}),
        ({"gpu_memory_gib": 0}, {"ten": True, "forty": True}),
        ({"measured": proof, "takes": "share"}, {"ten": False, "forty": True}),
        ({"measured": {**proof, "used": 9 * GIB}, "takes": "need"}, {"ten": True, "forty": True}),
    ):
        hosts_seen(monkeypatch, model(large, **change), **hosts)
        assert {name: one["fits"] for name, one in fits().items()} == expected, change
    hosts_seen(monkeypatch, model(large, measured=proof, takes="share"), **hosts)
    assert fits()["forty"]["reason"] == (
        "forty: fits on 2 GPUs: it has run on such of 40.0 GiB, whatever the estimate says."
    )
    # of another length nothing was measured
    assert fits("--max-model-len", "4095")["forty"]["fits"] is False


def test_a_model_whose_size_a_host_has_told(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"config": LLAMA_3_8B, "files_bytes": 16 * GIB}
    hosts_seen(monkeypatch, model(None, config=config, gpus=1, concurrency=3), one=seen_gpus(44.5))
    assert fits()["one"]["fits"] is True
    told = json.loads(fit("big", "-i", "anywhere", "--json").output)
    assert (told["asked"]["concurrency"], told["weights_from"]) == (3, "files")
    hosts_seen(monkeypatch, model(None, args={"quantization": "fp8"}, config=config), one=seen_gpus(44.5))
    assert "quantization of big change what it needs" in fit("big", "-i", "anywhere").output


def test_the_command_goes_before_the_inventory(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    args = {
        "max_model_len": "4096",
        "gpu_memory_utilization": 0.8,
        "kv_cache_dtype": "fp8",
        "max_num_seqs": 16,
    }
    inventory(monkeypatch, [model(large, args=args)])
    told = json.loads(fit("big", "-i", "anywhere", "--json").output)
    assert told["asked"] == {
        "max_model_len": 4096, "concurrency": 1, "tensor_parallel": 2, "kv_dtype": "fp8", "gpu_memory_utilization": 0.8,
    }  # fmt: skip
    told = json.loads(
        fit(
            "big", "-i", "anywhere", "--json", "--max-model-len", "100", "--tensor-parallel", "1", "--kv-dtype", "auto",
            "--gpu-memory-utilization", "0.5",
        ).output
    )  # fmt: skip
    assert told["asked"] == {
        "max_model_len": 100, "concurrency": 1, "tensor_parallel": 1, "kv_dtype": "auto", "gpu_memory_utilization": 0.5,
    }  # fmt: skip
    assert told["fits"] == []
    assert told["hosts"][0]["reason"].endswith("It would fit on 4 GPUs there.")


def test_another_engine_is_remarked(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    inventory(monkeypatch, [model(large, engine="tgi")])
    assert "big runs on tgi; the figures follow vllm's rules" in fit("big", "-i", "anywhere").output


def test_nobody_can_tell(monkeypatch: pytest.MonkeyPatch, large: Path) -> None:
    inventory(monkeypatch, [model(large, hosts=["gpu02", "gpu03"])])
    done = fit("big", "-i", "anywhere")
    assert done.exit_code == 1
    assert "gpu03: how much memory its GPUs have is not declared (fleet_gpu_memory_gib)" in done.output


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"id": "bigger"},
            "big is neither a path with a config.json nor a model of the inventory; did you mean bigger?",
        ),
        ({"source": {"hub": "org/big"}}, "The weights of big come from org/big: put its config.json"),
        ({"source": {"path": "/nowhere/at/all"}}, "which is on the hosts and not on this machine."),
        ({"loads_weights": False, "engine": "echo"}, "big runs on the engine echo, which loads no weights."),
        ({"gpus": 0}, "big runs on the processor"),
        (
            {"args": {"max_model_len": "many"}},
            "args.max_model_len of the model is 'many', which is no number.",
        ),
    ],
)
def test_models_that_cannot_be_judged(
    monkeypatch: pytest.MonkeyPatch, large: Path, change: dict[str, Any], told: str
) -> None:
    inventory(monkeypatch, [model(large, **change)])
    done = fit("big", "-i", "anywhere")
    assert done.exit_code == 1
    assert told in done.output


def test_an_inventory_with_problems(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    inventory(
        monkeypatch, [], kind="check", problems=[{"message": "model has no key 'x'.", "file": "models.yml"}]
    )
    done = fit(str(small), "-i", "anywhere")
    assert done.exit_code == 1
    assert "models.yml: model has no key 'x'." in done.output


def test_paths_and_ids(tmp_path: Path, small: Path) -> None:
    assert model_path(str(small)) == small
    assert model_path("qwen2.5-7b") is None
    for name in (str(tmp_path), "./nowhere", "nowhere.json", "\0/"):
        with pytest.raises(ConfigError):
            model_path(name)
    assert gpus_of("h100:79.6x8").count == 8
    with pytest.raises(ConfigError, match="it has none"):
        wished(Fleet([], []), "m", tmp_path)
