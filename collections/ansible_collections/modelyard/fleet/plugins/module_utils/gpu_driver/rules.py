"""What the generations of a host's GPUs, the platform and the wish leave: branch, kernel modules, fabric manager. Pure.

Each function adds to ``why`` a sentence that says what was chosen, and to ``problems`` one for what cannot be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpus.findings import named

Data = Mapping[str, Any]
FIRST_OPEN_BRANCH = 515
LAST_PROPRIETARY_BRANCH = 615
"""NVIDIA's driver installation guide: the open modules came with 515, the guide of release 620 has the others removed."""
FABRIC_DEVICES = frozenset({"2901", "3182"})
"""B200 and B300 on HGX boards: always joined by NVSwitches, which the host's PCI bus does not show."""


def branch(gpus: list[Data], platform: Data, wish: Data, why: list[str], problems: list[str]) -> int:
    """The wished branch, or the route's own where every GPU knows it, or the nearest that they do know."""
    route = platform["nvidia"][wish["route"]]
    first = max(_limits(gpus, "first_branch"), key=lambda one: one[0], default=(0, "", ""))
    last = min(_limits(gpus, "last_branch"), key=lambda one: one[0], default=None)
    wished = int(wish["branch"])
    if last and first[0] > last[0]:
        problems.append(
            f"No branch knows all GPUs of this host: {first[2]} ({first[1]}) needs {first[0]} or later, {last[2]} "
            f"({last[1]}) {last[0]} or earlier."
        )
        return wished or int(route["branch"])
    chosen = wished or int(route["branch"])
    if not wished and "only" not in route:
        chosen = min(max(chosen, first[0]), last[0] if last else max(chosen, first[0]))
    told = "is wished" if wished else f"is what {route['title']} has"
    if "only" in route and chosen not in route["only"]:
        problems.append(
            f"Branch {chosen} {told}, and {route['title']} has {', '.join(map(str, route['only']))} only on "
            f"{platform['title']}. "
            "Set gpu_driver_nvidia.route to cuda, or wish no branch."
        )
    elif chosen < first[0]:
        problems.append(
            f"Branch {chosen} {told}, and does not know {first[1]} yet, of which is {first[2]}: {first[0]} or later "
            "is needed. "
            + (
                "Set gpu_driver_nvidia.branch."
                if "only" not in route
                else "Set gpu_driver_nvidia.route to cuda."
            )
        )
    elif last and chosen > last[0]:
        problems.append(
            f"Branch {chosen} {told}, and no longer knows {last[1]}, of which is {last[2]}: {last[0]} is the last one. "
            "Set gpu_driver_nvidia.branch."
        )
    why.append(
        f"Branch {chosen} " + ("is wished." if wished else f"is the one of {route['title']} for these GPUs.")
    )
    return chosen


def _limits(gpus: list[Data], rule: str) -> list[tuple[int, str, str]]:
    """The branches that a rule names, each with the generation and the GPU that it is for."""
    return [
        (int(gpu["driver_rule"][rule]), str(gpu["generation"]), named(gpu))
        for gpu in gpus
        if gpu["driver_rule"].get(rule)
    ]


def modules(gpus: list[Data], chosen: int, wish: Data, why: list[str], problems: list[str]) -> str:
    """Open or proprietary, by the generations' rules."""
    wished = wish["modules"]
    must = [gpu for gpu in gpus if gpu["driver_rule"].get("open_modules") == "required"]
    cannot = [gpu for gpu in gpus if gpu["driver_rule"].get("open_modules") == "unsupported"]
    unknown = [gpu for gpu in gpus if not gpu["driver_rule"]]
    if must and cannot:
        problems.append(
            f"No driver serves all GPUs of this host: {_kind(must[0])} works with open kernel modules only, "
            f"{_kind(cannot[0])} only with proprietary ones."
        )
        return "open"
    if unknown and wished == "auto":
        problems.append(
            f"Which kernel modules {named(unknown[0])} needs is not known: "
            f"{unknown[0]['unknown'].get('generation', 'its generation could not be seen')}. Set gpu_driver_nvidia.modules."
        )
        return "open"
    kind: str = wished
    if wished == "auto":
        kind = "proprietary" if cannot else "open"
    if wished == "auto" and not (must or cannot) and chosen < FIRST_OPEN_BRANCH:
        kind = "proprietary"
    if kind == "open" and cannot:
        problems.append(
            f"Open kernel modules are wished, and {_kind(cannot[0])} does not work with them. "
            "Set gpu_driver_nvidia.modules to proprietary or auto."
        )
    if kind == "proprietary" and must:
        problems.append(
            f"Proprietary kernel modules are wished, and {_kind(must[0])} works with open ones only. "
            "Set gpu_driver_nvidia.modules to open or auto."
        )
    if kind == "open" and chosen < FIRST_OPEN_BRANCH:
        problems.append(f"Branch {chosen} has no open kernel modules: they came with {FIRST_OPEN_BRANCH}.")
    if kind == "proprietary" and chosen > LAST_PROPRIETARY_BRANCH:
        problems.append(
            f"Branch {chosen} has no proprietary kernel modules: {LAST_PROPRIETARY_BRANCH} was the last one that had."
        )
    reason = (
        f"{_kind(must[0])} works with no others" if must
        else f"{_kind(cannot[0])} does not work with the open ones" if cannot
        else "they are wished" if wished != "auto"
        else "NVIDIA recommends them for these GPUs" if kind == "open"
        else f"branch {chosen} is older than the open ones"
    )  # fmt: skip
    why.append(f"{kind.capitalize()} kernel modules: {reason}.")
    return kind


def _kind(gpu: Data) -> str:
    return f"{named(gpu)}, a {gpu['generation']},"


def kernel(route: Data, platform: Data, wish: Data, problems: list[str]) -> str:
    chosen = route["kernels"][0] if wish["kernel"] == "auto" else str(wish["kernel"])
    if chosen not in route["kernels"]:
        problems.append(
            f"{route['title']} has no {chosen} kernel modules for {platform['title']}. "
            "Set gpu_driver_nvidia.kernel to auto."
        )
    return chosen


def flavoured(names: Iterable[str], wish: Data, problems: list[str]) -> bool:
    """Whether names need a flavour of the kernel that nobody knows."""
    lacking = not wish["kernel_flavour"] and any("{flavour}" in name for name in names)
    if lacking:
        problems.append(
            "Packages of the running kernel are needed, and its release names no flavour, as 6.8.0-45-generic does. "
            "Set gpu_driver_kernel_flavour."
        )
    return lacking


def fabric(facts: Data, gpus: list[Data], wish: Data, why: list[str]) -> bool:
    if wish["fabric_manager"] != "auto":
        return bool(wish["fabric_manager"] == "always")
    seen = facts["drivers"]["nvidia"]["fabric_manager"]
    if seen["needed"]:
        why.append(
            f"A fabric manager, for {seen['switches']} NVSwitches on the PCI bus."
            if seen["switches"]
            else "A fabric manager, for the GPUs wait for one."
        )
        return True
    board = next((gpu for gpu in gpus if gpu["device"] in FABRIC_DEVICES), None)
    if board:
        why.append(f"A fabric manager, for {named(board)} is always joined by NVSwitches.")
    return board is not None
