"""Filters of the role ``gpu_driver``: which driver a host gets, and whether what it has is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.modelyard.fleet.plugins.module_utils.gpu_driver import choose, packages, state

DOCUMENTATION = r"""
name: gpu_driver
short_description: Which GPU driver a host gets, and whether what it has is one
description: See the functions of this file and of module_utils/gpu_driver.
"""


def gpu_driver_choice(
    facts: Mapping[str, Any],
    platform: Mapping[str, Any],
    wish: Mapping[str, Any],
    installed: Mapping[str, Any],
) -> dict[str, Any]:
    """``choose.choose``, with ``installed`` as ``package_facts`` has it: a list of instances for each name."""
    versions = {str(name): _version(instances) for name, instances in installed.items()}
    try:
        return choose.choose(facts, platform, wish, versions)
    except KeyError as error:
        raise AnsibleFilterError(f"the facts, the platform or the wish have no {error}") from error


def _version(instances: Any) -> str:
    newest = instances[-1]
    epoch, release = newest.get("epoch"), newest.get("release")
    return (f"{epoch}:" if epoch else "") + str(newest["version"]) + (f"-{release}" if release else "")


def gpu_driver_reboot(
    facts: Mapping[str, Any], choice: Mapping[str, Any], modinfo: str, asking: Iterable[str]
) -> list[str]:
    """Why a reboot is needed, see ``state.reboot_reasons``; ``modinfo`` is that program's output."""
    return state.reboot_reasons(
        facts, choice, state.installed_module(str(modinfo)), [str(one) for one in asking]
    )


def gpu_driver_faults(facts: Mapping[str, Any], choice: Mapping[str, Any], modinfo: str) -> list[str]:
    """What is not as chosen, see ``state.disagreements``."""
    return state.disagreements(facts, choice, state.installed_module(str(modinfo)))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filters by name."""
        return {
            "gpu_driver_choice": gpu_driver_choice,
            "gpu_driver_faults": gpu_driver_faults,
            "gpu_driver_reboot": gpu_driver_reboot,
            "kernel_flavour": packages.flavour_of,
        }
