"""Reading inventory files with positions."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.inventory import Sources, check_files, read_sources
from modelyard.inventory.source import Templated


def read(directory: Path, **files: str) -> Sources:
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path = path.with_name(path.name + ".yml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return read_sources(directory, directory)


def test_every_key_and_item_has_its_place(tmp_path: Path) -> None:
    sources = read(tmp_path, group_vars__all="models:\n  - id: a\n    args: {x: [1, 2]}\n")
    place = sources.find(("models", 0, "args", "x", 1))
    assert place is not None
    assert (place.file, place.line, place.column) == ("group_vars/all.yml", 3, 19)


def test_a_missing_key_is_found_at_what_should_hold_it(tmp_path: Path) -> None:
    sources = read(tmp_path, group_vars__all="models:\n  - id: a\n    source: {path: /x}\n")
    place = sources.find(("models", 0, "source", "revision"))
    assert place is not None
    assert place.line == 3


def test_a_host_is_looked_up_in_its_own_variables_first(tmp_path: Path) -> None:
    sources = read(
        tmp_path,
        group_vars__all="fleet_gpus: 1\n",
        group_vars__engine_hosts="fleet_gpus: 2\n",
        host_vars__gpu01="fleet_gpus: 3\n",
        hosts="all:\n  hosts:\n    gpu02:\n      fleet_gpus: 4\n",
    )
    files = {name: sources.find(("fleet_gpus",), name) for name in ("gpu01", "gpu02", "gpu03")}
    assert {name: place.file if place else None for name, place in files.items()} == {
        "gpu01": "host_vars/gpu01.yml",
        "gpu02": "hosts.yml",
        "gpu03": "group_vars/engine_hosts.yml",
    }


def test_templates_and_vault_values_are_taken_as_right(tmp_path: Path) -> None:
    text = (
        'models:\n  - id: a\n    engine: vllm\n    source: {path: "{{ base }}/a"}\n'
        '    placement: {replicas: "{{ n }}", gpus: "{{ 1 }}"}\n'
        "    env:\n      T: !vault |\n        $ANSIBLE_VAULT;1.1;AES256\n        6162\n"
        '      U: !unsafe "{{ not a template }}"\n'
    )
    sources = read(tmp_path, group_vars__all=text)
    env = sources.variables[0].values["models"][0]["env"]
    assert isinstance(env["T"], Templated)
    assert env["U"] == "{{ not a template }}"
    assert not isinstance(env["U"], Templated)
    assert check_files(tmp_path) == []


def test_a_file_that_is_encrypted_as_a_whole_is_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, group_vars__all="$ANSIBLE_VAULT;1.1;AES256\n6162\n").problems == []


def test_merge_keys_and_anchors_are_understood(tmp_path: Path) -> None:
    text = (
        "base: &base {engine: vllm, source: {path: /x}}\n"
        "models:\n  - <<: *base\n    id: a\n  - {<<: [*base], id: b, engine: tgi}\n"
    )
    sources = read(tmp_path, group_vars__all=text)
    assert [model["engine"] for model in sources.variables[0].values["models"]] == ["vllm", "tgi"]
    assert check_files(tmp_path) == []


def test_an_alias_of_itself_does_not_hang(tmp_path: Path) -> None:
    sources = read(tmp_path, group_vars__all="x: &x [1, *x]\n")
    assert sources.variables[0].values == {"x": [1, None]}


def test_yaml_booleans_are_ansibles(tmp_path: Path) -> None:
    sources = read(tmp_path, group_vars__all="a: yes\nb: 012\nc: 2026-01-01\nd: ~\ne: '1'\n")
    values = sources.variables[0].values
    assert (values["a"], values["b"], values["d"], values["e"]) == (True, 10, None, "1")


@pytest.mark.parametrize("text", ["- 1\n", "just text\n"])
def test_a_variables_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    (problem,) = read(tmp_path, group_vars__all=text).problems
    assert (problem.code, problem.file, problem.line) == ("not-a-mapping", "group_vars/all.yml", 1)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "all.yml").write_bytes(b"\xff\xfe\x00")
    (problem,) = read_sources(tmp_path, tmp_path).problems
    assert (problem.code, problem.file) == ("unreadable", "group_vars/all.yml")


def test_every_file_with_a_syntax_error_is_named(tmp_path: Path) -> None:
    sources = read(tmp_path, group_vars__all__a="a: [1\n", group_vars__all__b="b: {\n", hosts="all: '\n")
    assert [problem.file for problem in sources.problems] == [
        "group_vars/all/a.yml",
        "group_vars/all/b.yml",
        "hosts.yml",
    ]
    assert {problem.code for problem in sources.problems} == {"yaml-syntax"}


def test_a_file_that_is_empty_or_another_plugins_is_no_problem(tmp_path: Path) -> None:
    assert read(tmp_path, group_vars__all="", other="plugin: something\nregions: [a]\n").problems == []
