"""`modelyard check` on registries and inventories, good, broken and odd."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from modelyard.cli.check import resolved_problems
from modelyard.cli.main import main
from modelyard.cli.playbooks import Outcome, TaskFailure
from modelyard.cli.problems import Problem

ROOT = Path(__file__).parents[3]
REGISTRY = """
version: 1
models:
  demo:
    endpoints:
      - {id: demo.0, url: "http://127.0.0.1:8100", engine: echo}
"""
OK = "    - name: Look\n      ansible.builtin.debug:\n        msg: hello\n"


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    path = tmp_path / "endpoints.yml"
    path.write_text(REGISTRY, encoding="utf-8")
    return path


@pytest.fixture
def inventory(project) -> Path:
    """The local inventory of the repository, inside the stand-in project."""
    shutil.rmtree(project.inventory)
    shutil.copytree(ROOT / "inventories" / "local", project.inventory, ignore=shutil.ignore_patterns(".*"))
    return project.inventory


def spoil(inventory: Path, old: str, new: str) -> None:
    models = inventory / "group_vars" / "all" / "models.yml"
    text = models.read_text(encoding="utf-8")
    assert old in text
    models.write_text(text.replace(old, new), encoding="utf-8")


def test_a_good_registry(registry: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(registry)])
    assert done.exit_code == 0
    assert done.output == f"in order  {registry} (registry)\n"


def test_every_problem_of_a_registry_is_told_with_its_line(registry: Path) -> None:
    registry.write_text(
        REGISTRY.replace("endpoints:", "polcy: x\n    endpoints:").replace("http:", "ftp:"), encoding="utf-8"
    )
    done = CliRunner().invoke(main, ["check", str(registry), "--json"])
    assert done.exit_code == 1
    (checked,) = json.loads(done.output)["checked"]
    assert [(item["file"], item["where"]) for item in checked["problems"]] == [
        (f"{registry}:5", "model demo · polcy"),
        (f"{registry}:7", "model demo · endpoints[0].url"),
    ]
    table = CliRunner().invoke(main, ["check", str(registry)], env={"COLUMNS": "200"}).output
    assert "2 problems" in table
    assert "did you mean 'policy'?" in table


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"version: 1", b"[1, 2]"])
def test_files_that_are_no_registry(registry: Path, content: bytes) -> None:
    registry.write_bytes(content)
    done = CliRunner().invoke(main, ["check", str(registry)])
    assert done.exit_code == 1
    assert "problem" in done.output


def test_one_bad_path_among_several_decides(registry: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yml"
    bad.write_text("version: 2\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["check", str(registry), str(bad), "--json"])
    found = json.loads(done.output)
    assert (done.exit_code, found["ok"]) == (1, False)
    assert [item["ok"] for item in found["checked"]] == [True, False]


@pytest.mark.parametrize("arguments", [[], ["/nowhere/at/all.yml"]])
def test_wrong_calls(arguments: list[str]) -> None:
    assert CliRunner().invoke(main, ["check", *arguments]).exit_code == 2


def test_one_file_of_an_inventory_points_to_its_directory(inventory: Path) -> None:
    for part in ("hosts.yml", "group_vars/all/models.yml"):
        done = CliRunner().invoke(main, ["check", str(inventory / part)], env={"COLUMNS": "300"})
        assert done.exit_code == 1
        assert "Check the inventory's directory" in done.output


def test_the_files_of_an_inventory_alone(inventory: Path) -> None:
    done = CliRunner().invoke(main, ["check", str(inventory), "--files-only"])
    assert done.exit_code == 0
    assert "Ansible was not asked" in done.output


def test_broken_files_are_told_before_ansible_is_asked(project, inventory: Path) -> None:
    spoil(inventory, "replicas: 2", "replicas: two")
    spoil(inventory, "engine: echo", "engine: ecko")
    done = project.run("check", str(inventory), "--json")  # there is no playbook to run
    assert done.returncode == 1, done.stderr
    (checked,) = json.loads(done.stdout)["checked"]
    assert {item["where"] for item in checked["problems"]} == {
        "model echo · engine",
        "model echo · placement.replicas",
    }
    assert all("group_vars/all/models.yml:" in item["file"] for item in checked["problems"])
    assert "Did you mean echo?" in project.run("check", str(inventory)).stdout


def test_what_ansible_finds_is_told_too(project, inventory: Path) -> None:
    problem = {
        "message": "no host matches 'gpus'",
        "model": "echo",
        "field": "placement.hosts",
        "hint": "Add one.",
    }
    project.playbook("check", OK, {"problems": [problem]})
    done = project.run("check", str(inventory), "--json")
    assert done.returncode == 1
    (checked,) = json.loads(done.stdout)["checked"]
    assert checked["problems"] == [
        {
            "message": "no host matches 'gpus'",
            "file": "",
            "where": "model echo · placement.hosts",
            "advice": "Add one.",
        }
    ]


def test_what_the_files_and_ansible_show_comes_in_one_go(project, inventory: Path) -> None:
    spoil(inventory, "engine: echo", "engine: ecko")
    known = {"message": "there is no engine 'ecko'.", "model": "echo", "field": "engine"}
    other = {"message": "8 GPUs are wished, 4 exist.", "model": "big", "field": "placement.replicas"}
    project.playbook("check", OK, {"problems": [known, other]})
    (checked,) = json.loads(project.run("check", str(inventory), "--json").stdout)["checked"]
    assert [item["where"] for item in checked["problems"]] == [
        "model echo · engine",
        "model big · placement.replicas",
    ]


def test_ansible_is_not_asked_about_files_that_it_cannot_read(project, inventory: Path) -> None:
    spoil(inventory, "engine: echo", "engine: [echo")
    project.playbook("check", OK, {"problems": ["never told"]})
    done = project.run("check", str(inventory))
    assert done.returncode == 1
    assert "YAML syntax" in done.stdout
    assert "never told" not in done.stdout


def test_an_inventory_in_order(project, inventory: Path) -> None:
    project.playbook("check", OK, {"problems": []})
    done = project.run("check", str(inventory))
    assert (done.returncode, done.stdout) == (0, f"in order  {inventory} (inventory)\n")


def test_where_playbooks_are_missing_the_files_are_still_checked(project, inventory: Path) -> None:
    done = project.run("check", str(inventory))
    assert done.returncode == 0
    assert "Only the files were read:" in done.stdout


@pytest.mark.parametrize(
    ("outcome", "problems"),
    [
        (Outcome("successful", {"problems": []}, (), ""), []),
        (Outcome("failed", {"problems": ["a"]}, (TaskFailure("h", "t", "m"),), ""), [Problem("a")]),
        (Outcome("failed", None, (TaskFailure("h", "t", "m"),), ""), [Problem("m", where="h · t")]),
        (Outcome("failed", None, (), "[ERROR]: bad YAML"), [Problem("[ERROR]: bad YAML")]),
        (Outcome("canceled", None, (), ""), [Problem("The check was interrupted.", advice="Run it again.")]),
    ],
)
def test_a_failed_run_is_never_taken_for_a_good_one(outcome: Outcome, problems: list[Problem]) -> None:
    assert resolved_problems(outcome) == problems
