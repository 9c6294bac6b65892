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
