"""From GPU facts, platform data and a wish -> which driver, from where, and which packages come and go. Pure.

Nothing is touched by what is decided here, and nothing should be while ``problems`` has a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.gpu_driver import packages, rules

Data = Mapping[str, Any]


def choose(facts: Data, platform: Data, wish: Data, installed: Mapping[str, str]) -> dict[str, Any]:
    """The choice, as plain data.

    ``facts`` are those of ``gpu_facts``; ``installed`` has versions of packages by name. ``wish``: ``vendor`` (auto,
    nvidia, amd, none), ``kernel_flavour`` (``generic`` of the kernel 6.8.0-45-generic), ``upgrade``, and for NVIDIA
    ``route``, ``branch`` (0: the route's own), ``modules`` and ``kernel`` (auto or one), ``fabric_manager`` (auto, always,
    never) and ``change_route``.
    """
    vendor, why, problems = _vendor(facts, wish["vendor"])
    choice = _nothing(vendor, why, problems)
    if problems or vendor == "none":
        return choice
    if vendor == "amd":
        return _amd(choice, platform, wish, installed)
    return _nvidia(choice, facts, platform, wish, installed)


def _nothing(vendor: str, why: list[str], problems: list[str]) -> dict[str, Any]:
    return {
        "vendor": vendor,
        "route": "",
        "branch": 0,
        "modules": "",
        "kernel": "",
        "stream": "",
        "packages": [],
        "install": [],
        "remove": [],
        "moved": [],
        "shared": [],
        "pin": [],
        "unpin": [],
        "hold": [],
        "fabric_manager": False,
        "why": why,
        "problems": problems,
    }


def _vendor(facts: Data, wished: str) -> tuple[str, list[str], list[str]]:
    present = {name: seen["present"] for name, seen in facts["vendors"].items()}
    if wished == "none":
        return "none", ["No driver is wished."], []
    if wished != "auto":
        if present[wished] is False:
            return (
                wished,
                [],
                [
                    f"A driver of {wished} is wished, and the PCI bus has no GPU of that vendor: set gpu_driver_vendor to "
                    "auto or none."
                ],
            )
        return wished, [], []
    there = [name for name, seen in present.items() if seen]
    if len(there) > 1:
        return (
            "none",
            [],
            [
                "This host has GPUs of NVIDIA and of AMD. Say with gpu_driver_vendor whose driver this role should "
                "look after."
            ],
        )
    if there:
        return there[0], [], []
    if None in present.values():
        return (
            "none",
            [],
            [
                f"Whether this host has GPUs is not known: {facts['reason']}. Install pciutils, or set gpu_driver_vendor."
            ],
        )
    return "none", ["There is no GPU."], []


def _amd(choice: dict[str, Any], platform: Data, wish: Data, installed: Mapping[str, str]) -> dict[str, Any]:
    data = platform["amd"]
    choice["route"] = "amd"
    if rules.flavoured(data["packages"], wish, choice["problems"]):
        return choice
    choice["packages"] = [name.format(flavour=wish["kernel_flavour"]) for name in data["packages"]]
    choice["install"] = [name for name in choice["packages"] if name not in installed or wish["upgrade"]]
    choice["hold"] = _hold(data["family"], [])
    choice["why"] = [f"AMD's kernel driver and amd-smi come from {data['title']}."]
    return choice


def _nvidia(
    choice: dict[str, Any], facts: Data, platform: Data, wish: Data, installed: Mapping[str, str]
) -> dict[str, Any]:
    routes, why, problems = platform["nvidia"], choice["why"], choice["problems"]
    route = routes[wish["route"]]
    choice["route"] = wish["route"]
    if "absent" in route:
        others = [name for name in ("distribution", "cuda") if "absent" not in routes[name]]
        problems.append(
            f"{platform['title']} offers no driver by the route {wish['route']}: {route['absent']} "
            f"Set gpu_driver_nvidia.route to {' or '.join(others)}."
        )
        return choice
    gpus = [gpu for gpu in facts["gpus"] if gpu["vendor"] == "nvidia"]
    choice["branch"] = branch = rules.branch(gpus, platform, wish, why, problems)
    choice["modules"] = modules = rules.modules(gpus, branch, wish, why, problems)
    choice["kernel"] = kernel = rules.kernel(route, platform, wish, problems)
    choice["fabric_manager"] = rules.fabric(facts, gpus, wish, why)
    if problems:
        return choice
    names = packages.set_of(route, branch)
    if rules.flavoured(names["kernel"][kernel], wish, problems):
        return choice

    def fill(some: Iterable[str]) -> list[str]:
        return packages.fill(some, route, branch, modules, wish["kernel_flavour"])

    fabric = fill(names["fabric"]) if choice["fabric_manager"] else []
    if choice["fabric_manager"] and not fabric:
        problems.append(
            f"This host needs the fabric manager of branch {branch}, and {route['title']} has none. "
            "Set gpu_driver_nvidia.route to cuda."
        )
        return choice
    choice["pin"] = [name for name in fill(names.get("pin", ())) if name not in installed]
    pins = tuple(name.partition("{")[0] for name in names.get("pin", ()))
    choice["packages"] = [*fill(names["kernel"][kernel]), *fill(names["userspace"]), *fabric]
    if "stream" in route:
        choice["stream"] = fill([route["stream"][modules]])[0]
    own = packages.members(route["family"], installed)
    foreign = _foreign(routes, wish["route"], own, installed)
    if foreign and not wish["change_route"]:
        problems += [
            f"{', '.join(some)} of {title} would be mixed with packages of {route['title']}. To change the route, set "
            "gpu_driver_nvidia.change_route to true for one run on a drained host; to keep it, set gpu_driver_nvidia.route."
            for title, some in foreign.items()
        ]
        return choice
    keep = {*choice["packages"], *fill(names.get("pin", ()))}
    others = [name for some in foreign.values() for name in some]
    choice["moved"] = sorted(set(others) & keep)
    if "only" in route:
        # another repository may offer newer ones of these names
        choice["shared"] = [
            name for name in choice["packages"] if packages.members(route["family"], {name: route["sample"]})
        ]
    leaving = sorted(
        [name for name in others if name not in keep]
        + [one.name for one in own if _leaves(one, branch, modules, keep)]
    )
    choice["unpin"] = [name for name in leaving if pins and name.startswith(pins)]
    choice["remove"] = [name for name in leaving if name not in choice["unpin"]]
    choice["install"] = _install(choice, own, installed, fabric, platform["manager"], wish["upgrade"])
    choice["hold"] = _hold(route["family"], fill(names.get("hold", {}).get(kernel, ())))
    return choice


def _foreign(
    routes: Data, own_name: str, own: list[packages.Member], installed: Mapping[str, str]
) -> dict[str, list[str]]:
    """Installed packages of other routes, by the title of theirs."""
    left = {name: version for name, version in installed.items() if name not in {one.name for one in own}}
    found = {}
    for name in ("distribution", "cuda"):
        if name != own_name:
            some = [one.name for one in packages.members(routes[name]["family"], left)]
            if some:
                found[str(routes[name]["title"])] = some
            left = {key: version for key, version in left.items() if key not in some}
    for other in routes["others"]:
        some = [one.name for one in packages.members([{"name": name} for name in other["names"]], left)]
        if some:
            found[str(other["title"])] = some
    return found


def _leaves(one: packages.Member, branch: int, modules: str, wanted: set[str]) -> bool:
    """Whether a package of the route has no place beside the wanted ones.

    One that only its version tells to be of another branch is moved, not removed.
    """
    if one.name in wanted:
        return False
    if one.named_branch is not None and one.named_branch != branch:
        return True
    return one.is_open is not None and one.is_open != (modules == "open")


def _install(
    choice: Data,
    own: list[packages.Member],
    installed: Mapping[str, str],
    fabric: list[str],
    manager: str,
    upgrade: bool,
) -> list[str]:
    """What the package manager is asked for: what is missing or of another branch or route, or all of it for an upgrade.

    A fabric manager that joins a driver which stays is of the driver's very version.
    """
    there, branch = {one.name: one for one in own}, choice["branch"]
    changed = choice["moved"]
    missing = [
        name
        for name in choice["packages"]
        if name not in installed
        or name in changed
        or (name in there and (upgrade or there[name].branch not in (None, branch)))
    ]
    stays = [there[name] for name in choice["packages"] if name in there and name not in missing]
    version = packages.upstream_of(stays[0].version) if stays else None
    joint = "=" if manager == "apt" else "-"
    if missing and version and set(missing) <= set(fabric):
        return [f"{name}{joint}{version}*" for name in missing]
    if upgrade:
        # the dependencies move with what needs them
        gone = {*choice["remove"], *choice["unpin"], *missing}
        missing += [one.name for one in own if one.name not in gone]
    # a name that two routes share says which version is meant
    return [
        f"{name}{joint}{branch}.*" if name in changed or name in choice["shared"] else name
        for name in missing
    ]


def _hold(family: Iterable[Mapping[str, str]], more: Iterable[str]) -> list[str]:
    return [*(packages.anonymous(rule["name"]) for rule in family), *more]
