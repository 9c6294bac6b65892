from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from modelyard.errors import RegistryRefusedError
from modelyard.registry.check import registry_schema, url_fault
from modelyard.registry.load import find_problems, load_file, load_text
from modelyard.registry.model import Timeouts

from .broken import BROKEN, Broken

FULL = """
version: 1
generation: 42
models:
  qwen2.5-7b:
    name: Qwen2.5 7B Instruct
    hf_name: Qwen/Qwen2.5-7B-Instruct
    task: generate
    aliases: [default-chat, Qwen/Qwen2.5-7B]
    fallbacks: [small]
    policy: least_loaded
    timeouts: {connect_s: 3, first_byte_s: 90, idle_s: 30, total_s: 0}
    clients: []
    endpoints:
      - id: gpu01.qwen2.5-7b.0
        url: http://10.0.0.11:8001/
        engine: vllm
        served_name: served
        weight: 2
        state: active
        host: gpu01
        expires_at: 2026-12-31T18:00:00Z
  small:
    endpoints: []
"""


def test_a_full_registry_is_read() -> None:
    registry = load_text(FULL, "r.yml")
    model = registry.models["qwen2.5-7b"]
    endpoint = model.endpoints[0]
    assert registry.generation == 42
    assert model.timeouts == Timeouts(3, 90, 30, 0)
    assert endpoint.url == "http://10.0.0.11:8001"
    assert endpoint.weight == 2
    assert endpoint.expires_at is not None
    assert endpoint.expires_at.utcoffset() is not None
    assert registry.models["small"].name == "small"
    assert registry.resolve("Qwen/Qwen2.5-7B") is model
    assert registry.resolve("tgi") is registry.resolve("dummy") is model
    assert registry.resolve("Small") is None


def test_json_reads_the_same_as_yaml() -> None:
    data = {"version": 1, "models": {"m": {"endpoints": [{"id": "a", "url": "http://h:1", "engine": "tgi"}]}}}
    assert load_text(json.dumps(data), "r") == load_text(
        "version: 1\nmodels: {m: {endpoints: [{id: a, url: 'http://h:1', engine: tgi}]}}", "r"
    )


def test_the_schema_itself_is_valid() -> None:
    Draft202012Validator.check_schema(registry_schema())


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_registry_says_everything_that_is_wrong(case: Broken) -> None:
    said = [str(problem) for problem in find_problems(case.text, "r.yml")]
    for piece in case.says:
        assert any(piece in line for line in said), (piece, said)
    assert len(said) == len(case.says), said
    with pytest.raises(RegistryRefusedError) as caught:
        load_text(case.text, "r.yml")
    assert caught.value.problems == tuple(said)


def test_there_are_at_least_twenty_broken_ones() -> None:
    assert len({case.text for case in BROKEN}) >= 20


def test_a_password_in_a_url_is_not_repeated() -> None:
    assert "hunter2" not in "".join(str(url_fault("http://user:hunter2@10.0.0.1/x")))


def test_anchors_cannot_blow_a_file_up() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    said = find_problems("\n".join(rows), "r.yml")
    assert "more than" in str(said[0])


@pytest.mark.parametrize(
    "host",
    ["a..b", "a" * 64, "é.example", "a%2fb", "-a", "[fe80::x]", "a,b", "a" * 254, "a\\b"],
)
def test_a_host_that_no_resolver_takes(host: str) -> None:
    assert "is no URL with a valid host" in str(url_fault(f"http://{host}:80/x"))


@pytest.mark.parametrize(
    "host", ["vllm_1", "gpu01.example.org.", "10.0.0.1", "[::1]", "xn--bcher-kva.example"]
)
def test_hosts_as_they_are(host: str) -> None:
    assert url_fault(f"http://{host}:80/x") is None


def test_a_path_is_visible_ascii() -> None:
    assert url_fault("http://h/é")
    assert url_fault("http://h/%C3%A9") is None


def test_a_mark_at_the_beginning_is_no_fault() -> None:
    for text in ("version: 1\nmodels: {}\n", '{"version": 1, "models": {}}', "version: 1\r\nmodels: {}\r\n"):
        assert find_problems("\ufeff" + text, "r.yml") == []


def test_too_many_values_are_refused_before_they_are_composed() -> None:
    said = find_problems("[" + "1," * 1_000_001 + "]", "r.yml")
    assert "is not valid YAML: more than 1000000 values" in str(said[0])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{a: " * 3000])
def test_deep_nesting_is_an_error_not_a_crash(text: str) -> None:
    assert find_problems(text, "r.yml")


def test_bytes_that_are_no_text_and_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    with pytest.raises(RegistryRefusedError, match="cannot be read: No such file"):
        load_file(path)
    path.mkdir()
    with pytest.raises(RegistryRefusedError, match="cannot be read: Is a directory"):
        load_file(path)
    path.rmdir()
    os.mkfifo(path)
    # without its guard this waits for a writer, for ever
    with pytest.raises(RegistryRefusedError, match="it is no regular file"):
        load_file(path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RegistryRefusedError, match="is larger than"):
        load_file(path)
    path.write_bytes(b"version: \xff\xfe")
    with pytest.raises(RegistryRefusedError, match=r"is not UTF-8 text \(byte 9\)"):
        load_file(path)


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["m", "endpoints", "url", "id", "aliases", "fallbacks", "engine"]), inner
        )
    ),
    max_leaves=12,
)


@given(models=_plain)
def test_no_data_crashes_the_check(models: object) -> None:
    find_problems(json.dumps({"version": 1, "models": models}), "r.json")
