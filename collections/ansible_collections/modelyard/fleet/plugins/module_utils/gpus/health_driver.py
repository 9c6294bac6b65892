"""What is wrong with the NVIDIA driver: parts of different versions, a branch or kind of module that does not fit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.findings import (
    CRITICAL,
    NOTE,
    UNKNOWN,
    WARNING,
    Finding,
    finding,
    named,
)

Facts = Mapping[str, Any]


def findings(facts: Facts, expected: str | int | None) -> Iterator[Finding]:
    """``expected``: a branch such as 580, or a version such as 580.95.05."""
    nvidia = facts["drivers"]["nvidia"]
    module, userspace, fabric = nvidia["module"], nvidia["userspace"], nvidia["fabric_manager"]
    if facts["vendors"]["nvidia"]["present"] is False:
        return
    yield from _parts(module, userspace, fabric)
    yield from _fabric(facts, fabric)
    version = module["version"] or userspace["version"]
    if expected is not None:
        if version is None:
            yield finding(
                "driver_version_unknown",
                UNKNOWN,
                f"Driver {expected} is declared; which one runs is not known.",
            )
        elif not same(str(version), str(expected)):
            yield finding(
                "driver_other",
                WARNING,
                f"Driver {expected} is declared and {version} runs. Install the declared one, or declare "
                "this one.",
            )
    if module["version"] is None:
        return
    seen = set()
    for gpu in facts["gpus"]:
        rule = tuple(sorted(gpu["driver_rule"].items()))
        if gpu["vendor"] == "nvidia" and (gpu["generation"], rule) not in seen:
            seen.add((gpu["generation"], rule))
            yield from _rule(gpu, module)


def same(version: str, expected: str) -> bool:
    """Whether a version is the expected one or of the expected branch; a missing last part counts as equal."""
    one, other = version.split("."), expected.split(".")
    return all(left.lstrip("0") == right.lstrip("0") for left, right in zip(one, other))  # noqa: B905 - Python 3.9


def _parts(module: Facts, userspace: Facts, fabric: Facts) -> Iterator[Finding]:
    kernel, user = module["version"], userspace["version"]
    if (kernel and user and not same(kernel, user)) or userspace["complaint"] == "mismatch":
        yield finding(
            "driver_mismatch",
            CRITICAL,
            f"The NVIDIA kernel module is {kernel or 'of an unknown version'} and the libraries are "
            f"{user or 'of another one'}: the driver was upgraded beneath it. Drain the host and reboot "
            "it, or reload the module.",
        )
    if kernel and fabric["version"] and not same(kernel, fabric["version"]):
        yield finding(
            "fabric_manager_mismatch",
            CRITICAL,
            f"The NVIDIA kernel module is {kernel} and the fabric manager {fabric['version']}; they must "
            "be the same. Install "
            f"the fabric manager {kernel}.",
        )
    if module["state"] == "unknown":
        yield finding(
            "module_unknown",
            UNKNOWN,
            f"The version of the NVIDIA kernel module is not known: {module['reason']}.",
        )


def _fabric(facts: Facts, fabric: Facts) -> Iterator[Finding]:
    if fabric["needed"] and fabric["state"] == "down":
        yield finding(
            "fabric_manager_absent",
            CRITICAL,
            "The GPUs are joined by NVSwitches and there is no fabric manager. Install the one of the "
            "driver's version and start "
            "it before any engine.",
        )
    if fabric["needed"] and fabric["state"] == "unknown":
        yield finding(
            "fabric_manager_unknown",
            UNKNOWN,
            f"The fabric manager's version is not known: {fabric['reason']}.",
        )
    for gpu in facts["gpus"]:
        state, status = gpu["fabric"]["state"], gpu["fabric"]["status"]
        if state and (state.lower() != "completed" or (status and status.lower() != "success")):
            yield finding(
                "fabric_not_ready",
                CRITICAL,
                f"{named(gpu)} has not joined the NVLink fabric: "
                f"{state}{f', {status}' if status else ''}. Look at "
                "nvidia-fabricmanager.service and start it anew.",
                gpu["address"],
            )


def _rule(gpu: Facts, module: Facts) -> Iterator[Finding]:
    """What the generation asks of the driver, told once for each generation."""
    rule, name = gpu["driver_rule"], gpu["generation"]
    branch = int(module["version"].split(".")[0])
    if rule.get("last_branch") and branch > rule["last_branch"]:
        yield finding(
            "driver_too_new",
            CRITICAL,
            f"Driver {module['version']} no longer knows {name}, of which is {named(gpu)}. Install "
            f"branch {rule['last_branch']}.",
        )
    if rule.get("first_branch") and branch < rule["first_branch"]:
        yield finding(
            "driver_too_old",
            CRITICAL,
            f"Driver {module['version']} does not know {name} yet, of which is {named(gpu)}. Install branch "
            f"{rule['first_branch']} or later.",
        )
    wanted, is_open = rule.get("open_modules"), module["open"]
    if wanted == "required" and is_open is False:
        yield finding(
            "open_modules_required",
            CRITICAL,
            f"{named(gpu)} works with NVIDIA's open kernel modules only, and the proprietary ones are "
            "loaded. Install the open ones.",
        )
    if wanted == "unsupported" and is_open is True:
        yield finding(
            "open_modules_unsupported",
            CRITICAL,
            f"{named(gpu)} ({name}) does not work with NVIDIA's open kernel modules, which are loaded. "
            "Install the proprietary ones.",
        )
    if wanted == "recommended" and is_open is False:
        yield finding(
            "open_modules_recommended",
            NOTE,
            f"For {name} NVIDIA recommends its open kernel modules, and the proprietary ones are loaded. "
            "Change them at the next "
            "upgrade.",
        )
