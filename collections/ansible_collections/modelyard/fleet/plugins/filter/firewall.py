"""Filters for the rules that close the engines' ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.modelyard.fleet.plugins.module_utils import firewall
from ansible_collections.modelyard.fleet.plugins.module_utils.security.edge import ports_behind_edge
from ansible_collections.modelyard.fleet.plugins.module_utils.security.findings import neighbours
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

DOCUMENTATION = r"""
name: firewall
short_description: Ports and addresses as nftables takes them
description: See the functions of module_utils/firewall.py, neighbours of module_utils/security/findings.py
  and ports_behind_edge of module_utils/security/edge.py.
"""


def _told(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take plain data, and tell what is no port or address as an error of the filter."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*(data(argument) for argument in arguments))
        except firewall.FirewallError as error:
            raise AnsibleFilterError(str(error)) from error

    return call


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        names = (
            "port_ranges",
            "networks",
            "firewall_problems",
            "engine_firewall",
            "proxy_firewall",
            "shut_out",
            "targets",
        )
        return {name: _told(getattr(firewall, name)) for name in names} | {
            "neighbours": _told(neighbours),
            "ports_behind_edge": _told(ports_behind_edge),
        }
