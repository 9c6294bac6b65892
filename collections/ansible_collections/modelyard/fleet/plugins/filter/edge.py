"""Filters for the edge in front of the proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import edge, generations
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

DOCUMENTATION = r"""
name: edge
short_description: Hosts, proxies and addresses of the edge
description: See the functions of module_utils/edge.py, and digests of module_utils/generations.py.
"""


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """Take plain data."""

    def call(*arguments: Any) -> Any:
        return function(*(data(argument) for argument in arguments))

    return call


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        names = ("certificate_files", "edge_problems", "edge_sources", "edge_wiring", "vrrp_priority")
        found = {name: _plain(getattr(edge, name)) for name in names}
        # not made plain first: that would render the keys' texts
        found["gathered_files"] = edge.gathered_files
        return found | {"file_digests": _plain(generations.digests)}
