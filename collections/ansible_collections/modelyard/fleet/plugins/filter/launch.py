"""Filters that turn assignments of the plan into what the runtimes take."""

from __future__ import annotations

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
            "container_options": _checked(launch.container_options),
            "container_work": _checked(launch.container_work),
            "containers_of": _checked(launch.containers_of),
            "masked": masked,
            "process_program": _checked(launch.process_program),
            "target_generation": _checked(registry_file.target_generation),
        }
