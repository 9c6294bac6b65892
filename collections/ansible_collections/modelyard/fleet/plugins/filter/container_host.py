"""Filters that decide what a container host needs, and whether it may have it now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import packages, setup

DOCUMENTATION = r"""
name: container_host
short_description: What a container host needs
description: See the functions of module_utils/container_host/packages.py and setup.py.
"""


def package_changes(wanted: Any, installed: Any, manager: str) -> list[dict[str, Any]]:
    """See :func:`packages.package_changes`."""
    return packages.package_changes(wanted, installed, manager)


def change_lines(changes: list[dict[str, Any]]) -> list[str]:
    """Changes in words, one line each."""
    return [packages.change_line(change) for change in changes]


def host_refusals(
    look: dict[str, Any], host: str, changes: list[dict[str, Any]], not_survived: list[str]
) -> list[str]:
    """See :func:`packages.refusals`; ``look`` is the result of the module ``container_host``."""
    return packages.refusals(host, look["engine"], list(look["running"]), changes, not_survived)


def host_setup_reason(look: dict[str, Any], wish: str) -> str:
    """See :func:`setup.reason`."""
    return setup.reason(look, wish)


class FilterModule:
    """Filters for playbooks and roles."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Names and functions."""
        return {
            "change_lines": change_lines,
            "host_refusals": host_refusals,
            "host_setup_reason": host_setup_reason,
            "package_changes": package_changes,
        }
