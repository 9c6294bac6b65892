"""The JSON Schemas of the package, and their errors as sentences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from modelyard.inventory.problems import KeyPath, Problem, nearest
from modelyard.inventory.source import Templated

_NAMES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


@cache
def _load(name: str) -> dict[str, Any]:
    text = files(__package__).joinpath("schemas", name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def models_schema() -> dict[str, Any]:
    """Schema of the variable ``models``."""
    return _load("models.schema.json")


def fleet_schema() -> dict[str, Any]:
    """Schema of the ``fleet_*`` variables of one host, as one mapping."""
    return _load("fleet.schema.json")


def check_models_shape(models: Any) -> Iterator[Problem]:
    """Wrong types, unknown keys, missing keys and bad values of ``models``."""
    for error in Draft202012Validator(models_schema()).iter_errors(models):
        yield from _problems(error, ("models",), models)


def check_setting_shape(name: str, value: Any) -> Iterator[Problem]:
    """The same for one fleet setting; an unknown name is a problem too."""
    known = fleet_schema()["properties"]
    if name not in known:
        yield Problem(
            "unknown-setting",
            f"there is no fleet setting {name}.",
            (name,),
            nearest(name, known),
        )
        return
    for error in Draft202012Validator(known[name]).iter_errors(value):
        yield from _problems(error, (name,), None)


def _problems(error: ValidationError, root: KeyPath, models: Any) -> Iterator[Problem]:
    if isinstance(error.instance, Templated):
        return  # known only once Ansible has rendered it
    path = (*root, *error.absolute_path)
    instance: Any = error.instance
    schema: Any = error.schema
    rule: Any = error.validator_value
    model = label(models, error.absolute_path[0]) if models is not None and error.absolute_path else None
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = schema.get("properties", {})
        for key in error.instance:
            if key not in known:
                where = "a model" if len(path) == 2 and root == ("models",) else path[-1]
                yield Problem(
                    "unknown-key",
                    f"{where} has no key {key!r}.",
                    (*path, str(key)),
                    nearest(str(key), known),
                    model=model,
                )
    elif error.validator == "required":
        for key in rule:
            if key not in instance:
                yield Problem("missing-key", f"{key} is missing.", (*path, key), model=model)
    elif error.validator == "anyOf":
        keys = [key for choice in rule for key in choice["required"]]
        message = f"asks for nothing: it needs {', '.join(keys[:-1])} or {keys[-1]}."
        yield Problem("missing-key", message, path, model=model)
    elif "propertyNames" in error.schema_path:
        yield Problem("bad-key", f"{error.instance!r} cannot be a name here.", path, model=model)
    else:
        message, hint = _sentence(error)
        yield Problem(f"bad-{_CODES.get(str(error.validator), 'value')}", message, path, hint, model=model)


_CODES = {"type": "type"}


def _sentence(error: ValidationError) -> tuple[str, str]:
    value: Any = error.instance
    rule: Any = error.validator_value
    schema: Any = error.schema
    described = schema.get("description", "")
    shown = _shown(value)
    match error.validator:
        case "type":
            names = [rule] if isinstance(rule, str) else list(rule)
            return f"must be {' or '.join(_NAMES[name] for name in names)}, not {shown}.", described
        case "enum":
            return f"must be one of {', '.join(map(str, rule))}, not {shown}.", nearest(
                str(value), map(str, rule)
            )
        case "minimum" | "exclusiveMinimum":
            return (
                f"must be {'at least' if error.validator == 'minimum' else 'above'} {rule}, not {shown}.",
                "",
            )
        case "maximum":
            return f"must be at most {rule}, not {shown}.", ""
        case "minLength" | "minItems":
            return "must not be empty.", described
        case _:
            return f"{shown} is not a value for it.", described


def _shown(value: Any) -> str:
    kinds = ((Mapping, "a mapping"), (list, "a list"))
    for kind, name in kinds:
        if isinstance(value, kind):
            return name
    if value is None:
        return "nothing"
    text = json.dumps(value, default=str) if not isinstance(value, str) else f"{value!r}"
    return text if len(text) <= 60 else text[:57] + "..."


def label(models: Any, index: Any) -> str:
    """How a model is called in messages: its id, or its number in the list."""
    try:
        name = models[index]["id"]
    except (KeyError, IndexError, TypeError):
        name = None
    return (
        name if isinstance(name, str) and name else f"#{index + 1}" if isinstance(index, int) else str(index)
    )
