"""The endpoint registry's file: read it, choose its generation, render it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


class RegistryFileError(Exception):
    """The existing file cannot be understood; it is not overwritten unasked."""


@dataclass(frozen=True)
class Current:
    """What a registry file holds now. ``models`` is None when there is no file."""

    generation: int
    models: dict[str, Any] | None


def parse(text: str | None, path: str) -> Current:
    """Read an existing file, JSON or (with PyYAML at hand) YAML. Raises ``RegistryFileError``."""
    if text is None:
        return Current(0, None)
    try:
        document = json.loads(text)
    except ValueError:
        document = _parse_yaml(text, path)
    if not isinstance(document, dict) or not isinstance(document.get("models", {}), dict):
        raise RegistryFileError(f"{path} holds no registry (a mapping with version and models)")
    if document.get("version") != 1:
        raise RegistryFileError(f"{path} has version {document.get('version')!r}; this role writes version 1")
    generation = document.get("generation", 0)
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise RegistryFileError(f"{path} has generation {generation!r}, which is no number from 0 up")
    return Current(generation, document.get("models") or {})


def _parse_yaml(text: str, path: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise RegistryFileError(
            f"{path} is no JSON, and this host's Python has no PyYAML to read it as YAML: install python3-yaml, or "
            "move the file away"
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RegistryFileError(f"{path} is neither JSON nor YAML: {error}") from error


def render(models: dict[str, Any], generation: int) -> str:
    """The file's text: JSON, which is YAML too."""
    document = {"version": 1, "generation": generation, "models": models}
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def shape_problems(models: Any) -> list[str]:
    """The faults that would keep a proxy from using the models at all."""
    if not isinstance(models, dict):
        return ["models is no mapping"]
    problems = []
    for name, model in models.items():
        endpoints = model.get("endpoints") if isinstance(model, dict) else None
        if not isinstance(endpoints, list):
            problems.append(f"models.{name} has no list of endpoints")
            continue
        problems += [
            f"models.{name}.endpoints[{number}] needs an id and an http or https url"
            for number, endpoint in enumerate(endpoints)
            if not isinstance(endpoint, dict)
            or not endpoint.get("id")
            or not str(endpoint.get("url", "")).startswith(("http://", "https://"))
        ]
    return problems


def target_generation(seen: list[dict[str, Any]], floor: int = 0) -> int:
    """The one generation that all hosts of a run shall have.

    ``seen`` holds ``{"generation", "differs"}`` of each host. Hosts that hold the highest generation with the wished
    content keep it and the others follow; when the wished content is new, everyone takes the next one. ``floor`` is
    a generation that is already in use elsewhere (the deploy host's own copy).
    """
    highest = max([int(item["generation"]) for item in seen], default=0)
    holders = [item for item in seen if int(item["generation"]) == highest]
    settled = bool(holders) and not any(item["differs"] for item in holders)
    return max(highest if settled else highest + 1, floor, 1)
