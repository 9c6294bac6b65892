"""Filters that say what of a bundle a host gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.modelyard.fleet.plugins.module_utils import wiring
from ansible_collections.modelyard.fleet.plugins.plugin_utils.values import data

DOCUMENTATION = r"""
name: bundle
short_description: A bundle as hosts take it
description: See the functions of modelyard.bundle.share.
"""


def bundle_share(bundle: Any, replicas: Any) -> dict[str, Any]:
    """What of a bundle the host gets that is to run these replicas, as the plan has them."""
    try:
        from modelyard.bundle.share import share
    except ImportError as error:
        raise AnsibleFilterError(
            "Bundles need the Python package modelyard beside Ansible: install modelyard[deploy]."
        ) from error
    running = [data(item) for item in wiring.to_run(replicas)]
    return share(data(bundle), running, wiring.weights_items(running))


def bundle_wheel_problems(bundle: Any, title: str, python: str, machine: str) -> list[str]:
    """Why a host cannot be installed from the bundle's wheels."""
    from modelyard.bundle.share import wheel_problems

    plain = data(bundle)
    return wheel_problems(plain["wheels"], str(title), str(python), str(machine), plain["without"])


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {"bundle_share": bundle_share, "bundle_wheel_problems": bundle_wheel_problems}
