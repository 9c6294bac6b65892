"""Filters that turn assignments of the plan into what the runtimes take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.modelyard.fleet.plugins.module_utils import launch, registry_file

DOCUMENTATION = r"""
name: launch
short_description: Assignments of the plan as the runtimes take them
description: See the functions of module_utils/launch.py.
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


def work_lines(work: list[dict[str, Any]]) -> list[str]:
    """One line per replica that is not left alone: what happens and why."""
    return [
        f"{item['replica']}: {item['action']}, {item['reason']}" for item in work if item["action"] != "keep"
    ]


def program_lines(result: dict[str, Any]) -> list[str]:
    """The same for a result of the module ``supervised_program``."""
    lines = [
        f"{item['name']}: {item['action']}, {item['reason']}"
        for item in result.get("programs", [])
        if item["action"] != "keep"
    ]
    return [*lines, *result.get("notes", [])]


def program_names(stops: list[dict[str, Any]], stop_timeout_s: Any) -> list[dict[str, Any]]:
    """Stops of the plan as programs of the module ``supervised_program``."""
    return [{"name": stop["replica"], "stop_timeout_s": int(stop_timeout_s)} for stop in stops]


def writable_directories(assignments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Directories of the host that containers write to, with the user who must own them."""
    found: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        spec = assignment["spec"]
        user, _, group = str(spec.get("user") or "0").partition(":")
        for mount in spec.get("mounts") or []:
            if not mount["read_only"]:
                found[mount["source"]] = {"path": mount["source"], "owner": user, "group": group or user}
    return list(found.values())


def without_env(assignments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Assignments without their environments, for tasks that need none and may be logged."""
    return [{**item, "spec": {**item["spec"], "env": {}}} for item in assignments]


def failure_lines(results: list[dict[str, Any]]) -> str:
    """The messages of failed results, each with the replica or image it is about."""
    lines = []
    for result in results:
        item = result.get("item")
        subject = item.get("replica") if isinstance(item, dict) else item
        message = str(result.get("msg", "failed")).strip()
        lines.append(f"{subject}: {message}" if subject else message)
    return "\n".join(lines)


def masked(text: str, secrets: list[Any]) -> str:
    """The text with each of the secret values hidden; short values are no secrets and stay."""
    for secret in sorted((str(value) for value in secrets), key=len, reverse=True):
        if len(secret) > 3:
            text = text.replace(secret, "***")
    return text


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "work_lines": _checked(work_lines),
            "program_lines": _checked(program_lines),
            "program_names": _checked(program_names),
            "without_env": _checked(without_env),
            "failure_lines": _checked(failure_lines),
            "writable_directories": _checked(writable_directories),
            "container_options": _checked(launch.container_options),
            "container_work": _checked(launch.container_work),
            "containers_of": _checked(launch.containers_of),
            "masked": masked,
            "process_program": _checked(launch.process_program),
            "registry_problems": registry_problems,
            "snapshots": _checked(snapshots),
            "target_generation": _checked(registry_file.target_generation),
        }
