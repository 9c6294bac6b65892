"""The inventory's documentation says everything that the schemas know."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from modelyard.catalog import load_engines
from modelyard.inventory import fleet_schema, host_settings, models_schema, with_defaults
from modelyard.inventory.reference import renewed, rows

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "inventory.md").read_text(encoding="utf-8")


def test_tables_are_those_of_the_schemas() -> None:
    assert renewed(DOCUMENT) == DOCUMENT, "run: python -m modelyard.inventory.reference docs/inventory.md"


def test_every_key_is_documented() -> None:
    keys = [path for path, _ in rows(models_schema()["items"]["properties"])]
    keys += list(fleet_schema()["properties"])
    assert [key for key in keys if f"| `{key}` |" not in DOCUMENT] == []


def test_every_key_has_a_description_and_settings_a_default_and_a_scope() -> None:
    for path, rule in rows(models_schema()["items"]["properties"]):
        assert rule.get("description"), path
    for name, rule in fleet_schema()["properties"].items():
        assert rule["x-scope"] in ("fleet", "host"), name
        assert ("default" in rule) != ("x-default" in rule), name


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="models: begin"):
        renewed("# nothing\n")


def test_every_setting_stands_in_the_example() -> None:
    text = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "inventories" / "example").rglob("*.yml")
    )
    assert [name for name in fleet_schema()["properties"] if not re.search(rf"\b{name}:", text)] == []


def test_every_key_of_a_model_stands_in_the_example() -> None:
    text = (ROOT / "inventories" / "example" / "group_vars" / "all" / "models.yml").read_text(
        encoding="utf-8"
    )
    keys = [path.rpartition(".")[2] for path, _ in rows(models_schema()["items"]["properties"])]
    assert [key for key in keys if not re.search(rf"\b{key}:", text)] == []


@pytest.mark.parametrize("schema", [models_schema(), fleet_schema()], ids=["models", "fleet"])
def test_schemas_are_schemas(schema: dict[str, object]) -> None:
    Draft202012Validator.check_schema(schema)


def test_defaults_pass_their_own_schema() -> None:
    settings = host_settings(
        {}, name="h", ansible_host="192.0.2.1", local=False, inventory_dir="/i", python="/usr/bin/python3"
    )
    given = {name: value for name, value in settings.items() if value is not None}
    assert list(Draft202012Validator(fleet_schema()).iter_errors(given)) == []
    engine = load_engines()["echo"].data
    model = {
        key: value for key, value in with_defaults({"id": "m", "engine": "echo"}, engine).items() if value
    }
    assert list(Draft202012Validator(models_schema()).iter_errors([model])) == []
    assert model["placement"] == {
        "hosts": "engine_hosts", "replicas": 1, "gpus": 0, "concurrency": 1, "pin": [],
    }  # fmt: skip


def test_a_local_host_is_reached_on_loopback_and_uses_this_interpreter() -> None:
    settings = host_settings(
        {"fleet_runtime": "process"},
        name="localhost",
        ansible_host=None,
        local=True,
        inventory_dir="/i",
        python="/venv/bin/python",
    )
    assert settings["fleet_address"] == "127.0.0.1"
    assert settings["fleet_python"] == "/venv/bin/python"
    assert settings["fleet_home"] == "~/.local/state/modelyard/modelyard"
    assert settings["fleet_state_dir"] == "/i/.modelyard"


def test_the_local_inventory_answers_to_the_documented_names() -> None:
    text = (ROOT / "inventories" / "local" / "group_vars" / "all" / "models.yml").read_text(encoding="utf-8")
    (model,) = yaml.safe_load(text)["models"]
    assert "gpt-2" in model["routing"]["aliases"]
