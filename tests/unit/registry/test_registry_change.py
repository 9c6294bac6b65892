from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from modelyard.errors import ConfigError, RegistryRefusedError
from modelyard.registry.diff import diff
from modelyard.registry.environment import from_environment
from modelyard.registry.keep import RegistryKeeper
from modelyard.registry.load import load_file, load_text
from modelyard.registry.model import Registry
from modelyard.registry.watch import RegistryWatcher, signature


def document(generation: int = 1, **models: list[str]) -> str:
    return json.dumps(
        {
            "version": 1,
            "generation": generation,
            "models": {
                name: {
                    "endpoints": [
                        {"id": f"{name}.{n}", "url": url, "engine": "vllm"} for n, url in enumerate(urls)
                    ]
                }
                for name, urls in models.items()
            },
        }
    )


def registry(generation: int = 1, **models: list[str]) -> Registry:
    return load_text(document(generation, **models), "r")


def test_diff_names_what_came_went_and_changed() -> None:
    old = registry(a=["http://h:1"], b=["http://h:2"], c=["http://h:3"])
    new = registry(2, a=["http://h:1", "http://h:9"], b=["http://h:7"], d=[])
    change = diff(old, new)
    assert change.models_added == ("d",)
    assert change.models_removed == ("c",)
    assert change.models_changed == ()
    assert change.endpoints_added == ("a.1",)
    assert change.endpoints_removed == ("c.0",)
    assert change.endpoints_changed == ("b.0",)
    assert diff(old, registry(7, a=["http://h:1"], b=["http://h:2"], c=["http://h:3"])).empty


def test_a_lower_generation_is_refused_and_an_equal_one_taken() -> None:
    keeper = RegistryKeeper(registry(5, a=[]), "r", lambda: 0.0)
    with pytest.raises(RegistryRefusedError, match="generation 4 is lower than 5, which is in force"):
        keeper.offer(registry(4, b=[]))
    assert list(keeper.current.models) == ["a"]
    keeper.offer(registry(5, b=[]))
    assert list(keeper.current.models) == ["b"]


class Watch:
    """A watcher over a real file, looked at by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeper = RegistryKeeper(load_file(path), str(path), lambda: 0.0)
        self.watcher = RegistryWatcher(path, self.keeper, interval_s=1, seen=signature(path))

    def replace(self, text: str) -> None:
        other = self.path.with_suffix(".new")
        other.write_text(text)
        other.replace(self.path)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    path = tmp_path / "endpoints.yml"
    path.write_text(document(1, a=[]))
    return Watch(path)


async def test_a_renamed_file_and_one_written_in_place_are_taken(watch: Watch) -> None:
    assert not await watch.watcher.look()
    watch.replace(document(2, b=[]))
    assert await watch.watcher.look()
    watch.path.write_text(document(3, longer=[]))
    assert not await watch.watcher.look()
    assert await watch.watcher.look()
    assert list(watch.keeper.current.models) == ["longer"]


async def test_half_a_file_written_in_place_is_not_taken(watch: Watch) -> None:
    first = "version: 1\ngeneration: 2\nmodels:\n  a: {endpoints: []}\n"
    watch.path.write_text(first)
    assert not await watch.watcher.look()
    with watch.path.open("a") as file:
        file.write("  b: {endpoints: []}\n")
    assert not await watch.watcher.look()
    assert watch.keeper.current.generation == 1
    assert await watch.watcher.look()
    assert list(watch.keeper.current.models) == ["a", "b"]
    assert watch.keeper.status.taken == 2


async def test_what_makes_the_reader_fail_is_refused_like_anything_else(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> str:
        raise KeyError("odd")

    watch.replace(document(2, b=[]))
    with monkeypatch.context() as patch:
        patch.setattr("modelyard.registry.load.read_text", fail)
        assert not await watch.watcher.look()
        assert not await watch.watcher.look()
    assert caplog.text.count("reading it failed\n") == 1
    assert (watch.keeper.status.refused, watch.keeper.status.in_step) == (1, False)
    assert "reading it failed (KeyError)" in watch.keeper.status.problems[0]


async def test_a_refusal_is_told_once_and_leaves_the_last_good(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    watch.replace("version: 1\nmodels: [\n")
    with caplog.at_level(logging.ERROR):
        assert not await watch.watcher.look()
        assert not await watch.watcher.look()
    assert caplog.text.count("refused, generation 1 stays in force") == 1
    assert watch.keeper.status.refused == 1
    assert "is not valid YAML" in watch.keeper.status.problems[0]
    assert list(watch.keeper.current.models) == ["a"]
    watch.replace(document(0, b=[]))
    await watch.watcher.look()
    assert "generation 0 is lower than 1" in watch.keeper.status.problems[0]
    watch.replace(document(2, b=[]))
    assert await watch.watcher.look()
    assert watch.keeper.status.in_step


async def test_a_file_that_vanishes_and_returns(watch: Watch) -> None:
    kept = watch.path.rename(watch.path.with_suffix(".away"))
    assert not await watch.watcher.look()
    assert watch.keeper.status.missing
    assert not watch.keeper.status.in_step
    assert list(watch.keeper.current.models) == ["a"]
    kept.rename(watch.path)
    await watch.watcher.look()
    assert watch.keeper.status.in_step


async def test_a_file_written_while_it_is_read_is_left_for_the_next_look(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = document(2, b=[])
    watch.path.write_text(whole[:30])

    def read_half(path: Path) -> str:
        text = path.read_text()
        path.write_text(whole)
        return text

    with monkeypatch.context() as patch:
        patch.setattr("modelyard.registry.load.read_text", read_half)
        assert not await watch.watcher.look()
        assert not await watch.watcher.look()
    assert watch.path.read_text() == whole
    assert watch.keeper.status.refused == 0
    assert not await watch.watcher.look()
    assert await watch.watcher.look()


async def test_the_watch_goes_on_after_a_fault(watch: Watch) -> None:
    calls: list[float] = []

    class Enough(BaseException):
        pass

    async def sleep(seconds: float) -> None:
        calls.append(seconds)
        if len(calls) == 3:
            raise Enough

    watcher = RegistryWatcher(watch.path, watch.keeper, interval_s=0.7, sleep=sleep)

    async def fail() -> bool:
        raise ValueError("odd")

    watcher.look = fail  # type: ignore[method-assign]
    with pytest.raises(Enough):
        await watcher.run()
    assert calls == [0.7, 0.7, 0.7]


def test_the_generation_backends_environment() -> None:
    found = from_environment(
        {
            "TGI_GPT2_ENDPOINT": "http://gpu:8080",
            "TGI_MISTRAL_ENDPOINT": "http://gpu:8081/",
            "TGI_MY_MODEL_ENDPOINT": "http://gpu:8082",
            "TGI_TINYLLAMA_ENDPOINT": " ",
            "HOME": "/root",
        }
    )
    rows = [(model.id, model.name, model.hf_name, model.endpoints[0].url) for model in found.models.values()]
    assert rows == [
        ("gpt-2", "GPT-2", "gpt2", "http://gpu:8080"),
        ("mistral", "Mistral 7B", "mistralai/Mistral-7B-Instruct-v0.2", "http://gpu:8081"),
        ("my-model", "my-model", None, "http://gpu:8082"),
    ]
    assert found.models["gpt-2"].endpoints[0].engine == "tgi"


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        from_environment(
            {
                "TGI_GPT2_ENDPOINT": "gpu:8080",
                "TGI_GPT_2_ENDPOINT": "http://h",
                "TGI_X_ENDPOINT": "http://u:p@h",
            }
        )
    text = "\n".join(caught.value.problems)
    assert "TGI_GPT2_ENDPOINT: must begin with http:// or https://" in text
    assert "TGI_GPT_2_ENDPOINT: names model gpt-2 again, as TGI_GPT2_ENDPOINT does" in text
    assert "TGI_X_ENDPOINT: must not hold a user name or password" in text
    with pytest.raises(ConfigError, match="give a registry"):
        from_environment({})
