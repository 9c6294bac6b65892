from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, is_trusted_as_template, trust_as_template
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.cli.extra_vars import extra_vars_yaml
from modelyard.cli.playbooks import Events, ansible_environment, failure_message
from modelyard.cli.project import inventory_path, project_root
from modelyard.errors import ConfigError

MARKS = ("{{", "{%", "{#")


def as_ansible_reads(directory: Path, values: dict[str, Any]) -> Any:
    path = directory / "extra.yml"
    path.write_text(extra_vars_yaml(values), encoding="utf-8")
    return DataLoader().load_from_file(str(path), cache="none", trusted_as_template=True)


@given(st.text() | st.from_regex(r"[-+]?[0-9_.:]{1,8}(e[0-9])?", fullmatch=True))
@example("3.11")
@example("yes")
@example("~")
@example("<<")
@example("2026-01-01")
@example("{{ lookup('pipe', 'id') }}")
def test_every_string_survives_as_text_and_is_no_template(text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        try:
            read = as_ansible_reads(Path(directory), {"a": text, "b": {"c": [text, 1, True, None]}})
        except UnicodeEncodeError:
            return  # lone surrogates cannot stand in a file
    assert read == {"a": text, "b": {"c": [text, 1, True, None]}}
    for found in (read["a"], read["b"]["c"][0]):
        assert isinstance(found, str)
        assert not (is_trusted_as_template(found) and any(mark in found for mark in MARKS))


def test_a_template_in_a_string_is_not_rendered(tmp_path: Path) -> None:
    read = as_ansible_reads(tmp_path, {"a": "{{ 6 * 7 }}"})
    assert (
        Templar(loader=DataLoader(), variables=read).template(trust_as_template("{{ a }}")) == "{{ 6 * 7 }}"
    )


def make_project(directory: Path) -> Path:
    (directory / "playbooks").mkdir(parents=True)
    (directory / "ansible.cfg").touch()
    return directory


def test_the_project_is_found_upwards_by_name_or_around_the_package(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    here, there = make_project(tmp_path / "here"), make_project(tmp_path / "there")
    deep = here / "inventories" / "local"
    deep.mkdir(parents=True)
    assert project_root(deep, {}, package=outside) == here
    assert project_root(deep, {"MODELYARD_HOME": str(there)}, package=outside) == there
    assert project_root(outside, {}, package=there / "proxy" / "modelyard") == there
    with pytest.raises(ConfigError, match="MODELYARD_HOME"):
        project_root(outside, {}, package=outside)
    with pytest.raises(ConfigError, match=r"holds no ansible\.cfg"):
        project_root(deep, {"MODELYARD_HOME": str(outside)})


def test_an_inventory_is_found_from_here_first(tmp_path: Path) -> None:
    for place in ("a/inventories/x", "b/inventories/x", "b/inventories/y"):
        (tmp_path / place).mkdir(parents=True)
    here, root = tmp_path / "a", tmp_path / "b"
    assert inventory_path("inventories/x", here, root) == here / "inventories/x"
    assert inventory_path("inventories/y", here, root) == root / "inventories/y"
    with pytest.raises(ConfigError, match="inventories/z"):
        inventory_path("inventories/z", here, root)


def test_host_keys_are_checked_unless_the_user_says_otherwise() -> None:
    assert ansible_environment({}, Path("/x"))["ANSIBLE_HOST_KEY_CHECKING"] == "True"
    assert (
        ansible_environment({"ANSIBLE_HOST_KEY_CHECKING": "False"}, Path("/x"))["ANSIBLE_HOST_KEY_CHECKING"]
        == "False"
    )


@pytest.mark.parametrize(
    ("res", "message"),
    [
        ({"msg": "bad"}, "bad"),
        ({"msg": "", "stderr": "worse"}, "worse"),
        (
            {"results": [{"msg": "fine"}, {"failed": True, "msg": "one"}, {"failed": True, "msg": "two"}]},
            "one; two",
        ),
        ({"msg": ["a", "b"]}, "a\nb"),
        ({"msg": "\n".join(map(str, range(50)))}, "\n".join(map(str, range(38, 50)))),
        ({"censored": "hidden", "msg": "secret"}, "hidden (no_log)"),
        ({}, "no reason was given"),
        (None, "no reason was given"),
    ],
)
def test_the_reason_of_a_failure(res: Any, message: str) -> None:
    assert message in failure_message(res)
    assert "secret" not in failure_message(res)


def test_events_become_progress_and_failures() -> None:
    lines: list[str] = []
    events = Events(lines.append)
    data = {"task": "Copy", "host": "gpu01", "res": {"msg": "no space"}}
    for kind, more in [
        ("playbook_on_task_start", {"task": "Copy"}),
        ("runner_on_start", data),
        ("runner_on_ok", data),
        ("runner_on_failed", {**data, "ignore_errors": True}),
        ("runner_on_failed", data),
        ("runner_on_unreachable", data),
        ("verbose", {}),
    ]:
        assert events.handle({"event": kind, "event_data": more}) is False
    assert lines == ["Copy", "Copy · gpu01"]
    assert [str(failure) for failure in events.failures] == [
        'gpu01: failed at "Copy": no space',
        'gpu01: did not answer at "Copy": no space',
    ]
