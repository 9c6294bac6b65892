"""Filters that turn what the plan holds into what modules take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.modelyard.fleet.plugins.module_utils import registry_file

DOCUMENTATION = r"""
name: launch
short_description: Parts of the plan as modules take them
description: See the functions of this file and of module_utils/registry_file.py.
"""


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tell what an assignment lacks, in place of a traceback."""

    def call(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except KeyError as error:
            raise AnsibleFilterError(f"an assignment has no {error}: is it from the planner?") from error

    return call


def snapshots(items: list[dict[str, Any]], directory: str, owner: Any, group: Any) -> list[dict[str, Any]]:
    """Items of weights with destination and owner filled in, as the module ``model_snapshot`` takes them."""
    return [
        {
            "model": item["model"],
            "source": dict(item["source"]),
            "destination": item.get("destination")
            or item["source"].get("path")
            or f"{str(directory).rstrip('/')}/{item['model']}",
            "owner": int(owner if item.get("owner") is None else item["owner"]),
            "group": int(group if item.get("group") is None else item["group"]),
        }
        for item in items
    ]


def registry_problems(models: Any) -> list[str]:
    """Every fault of a registry's models, one sentence each.

    Judged by the proxy's own check when the package is installed beside Ansible; without it only the shape of the
    endpoints is looked at.
    """
    text = registry_file.render(json.loads(json.dumps(models)), 1)
    try:
        from modelyard.registry.load import find_problems
    except ImportError:
        return registry_file.shape_problems(json.loads(text)["models"])
    return [str(problem) for problem in find_problems(text, "endpoints.yml")]


def registry_exports(models: Any, exports: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The files that other programs read, as the module ``endpoint_registry`` takes them: path and content.

    ``models`` without a fault; ``exports`` name format, path and, where not all models are meant, ``models``.
    """
    if not exports:
        return []
    try:
        from modelyard.errors import ConfigError
        from modelyard.registry import exports as formats
        from modelyard.registry.load import load_text
    except ImportError as error:
        raise AnsibleFilterError(
            "Exports of the registry need the Python package modelyard beside Ansible: install modelyard[deploy]."
        ) from error
    paths = [str(item["path"]) for item in exports]
    for path in paths:
        if paths.count(path) > 1:
            raise AnsibleFilterError(f"{path} is the path of two exports: each needs a file of its own.")
    try:
        registry = load_text(registry_file.render(json.loads(json.dumps(models)), 1), "endpoints.yml")
        return [
            {
                "path": str(item["path"]),
                "content": formats.export(registry, item["format"], item.get("models") or ()),
            }
            for item in exports
        ]
    except ConfigError as error:
        raise AnsibleFilterError(f"An export of the registry cannot be made. {error.message}") from error


def without_env(assignments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assignments without their environments, for tasks that need none and may be logged."""
    return [{**item, "spec": {**item["spec"], "env": {}}} for item in assignments]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "without_env": _checked(without_env),
            "registry_exports": _checked(registry_exports),
            "registry_problems": registry_problems,
            "snapshots": _checked(snapshots),
            "target_generation": _checked(registry_file.target_generation),
        }
