"""From what an inventory needs to what a bundle collects."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.bundle import galaxy
from modelyard.bundle.images import ImageSource
from modelyard.bundle.locks import only
from modelyard.bundle.manifest import KINDS, BundleError
from modelyard.bundle.packages import PackagesSource
from modelyard.bundle.project import ProjectSource
from modelyard.bundle.sources import Source
from modelyard.bundle.weights import CARRIED, WeightsSource, left_to_hosts
from modelyard.bundle.wheels import WheelsSource
from modelyard.errors import did_you_mean

MACHINES: Mapping[str, str] = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
"""Architectures as `uname -m` says them, and as container engines do."""

_PINS = {"hub": "revision", "url": "sha256"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the command says beyond the inventory.

    ``given`` are by model the files or directories of this machine that its weights are taken from; ``pythons`` are
    versions of hosts, ``own_python`` is that of the controller.
    """

    pythons: tuple[str, ...]
    own_python: str
    machine: str
    without: tuple[str, ...] = ()
    given: Mapping[str, Path] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    token_file: str = ""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be collected, and what the operator should know of what is not."""

    sources: tuple[Source, ...]
    notes: tuple[str, ...]


def choose(
    needs: Mapping[str, Any], options: Options, root: Path, version: str, environment: Mapping[str, str]
) -> Chosen:
    """The sources of a bundle. ``root`` is the checkout. Raises ``BundleError`` for options that fit nothing."""
    notes: list[str] = []
    sources: list[Source] = []
    sources += _images(needs, options)
    sources += _weights(needs, options, root, notes)
    sources += _wheels(needs, options, root)
    sources += galaxy.find(options.collections, galaxy.search_paths(root, environment))
    if options.packages:
        sources.append(PackagesSource.of_this_machine(options.packages))
    sources.append(ProjectSource(root, version))
    chosen = tuple(one for one in sources if one.kind not in options.without)
    notes += [f"{kind}: left out, as asked; the closed side must have what is needed of it." for kind in KINDS
              if kind in options.without]  # fmt: skip
    return Chosen(chosen, tuple(notes))


def _images(needs: Mapping[str, Any], options: Options) -> list[Source]:
    own = platform.machine() == options.machine
    return [
        ImageSource(item["reference"], tuple(item["models"]), "" if own else MACHINES[options.machine])
        for item in needs["images"]
    ]


def _weights(needs: Mapping[str, Any], options: Options, root: Path, notes: list[str]) -> list[Source]:
    models = {name for item in needs["weights"] for name in item["models"]}
    for name, place in options.given.items():
        if name not in models:
            raise BundleError(
                f"--weights {name}=...: no model {name} of the inventory needs weights{did_you_mean(name, models)}"
            )
        if not place.exists():
            raise BundleError(f"--weights {name}={place}: that is not there.")
    found: list[Source] = []
    for item in needs["weights"]:
        source, names = item["source"], tuple(item["models"])
        places = {options.given[name] for name in names if name in options.given}
        if len(places) > 1:
            raise BundleError(
                f"The models {', '.join(names)} have the same weights: name one place for them."
            )
        taken = next(iter(places), None)
        if left_to_hosts(source):
            which = f"a bundle carries weights of the sources {', '.join(CARRIED)} only"
            if taken is not None:
                raise BundleError(f"--weights {names[0]}=...: {which}.")
            notes.append(
                f"{', '.join(names)}: left out, for {which}; the hosts have to have them already, or to reach their source."
            )
            continue
        if taken is not None and "url" in source:
            raise BundleError(
                f"--weights {names[0]}=...: weights of a url are checked against its sha256, so they are fetched."
            )
        if taken is None and "path" in source:
            notes.append(
                f"{', '.join(names)}: {source['path']} has to be on the hosts already (source.path); "
                f"--weights {names[0]}=DIRECTORY takes it along."
            )
            continue
        kind = next((one for one in _PINS if one in source), None)
        if kind and _PINS[kind] not in source:
            notes.append(f"{', '.join(names)}: left out, for the {kind} source has no {_PINS[kind]}.")
            continue
        found.append(
            WeightsSource(
                source, names, root / "collections", str(needs["hub_endpoint"]), options.token_file, taken
            )
        )
    paths: dict[str, str] = {}
    for one in found:
        if one.path in paths:
            raise BundleError(
                f"{one.name} and {paths[one.path]} would have the same place in the bundle: {one.path}"
            )
        paths[one.path] = one.name
    return found


def _wheels(needs: Mapping[str, Any], options: Options, root: Path) -> list[Source]:
    locks = root / "proxy" / "requirements"
    serve = (locks / "serve.txt").read_text(encoding="utf-8")
    deploy = (locks / "deploy.txt").read_text(encoding="utf-8")
    hosts = (options.pythons, options.machine)
    found: list[Source] = []
    if needs["python"]["proxies"]:
        found.append(WheelsSource("proxies", serve, "serve.txt", *hosts))
    if needs["python"]["processes"]:
        found.append(WheelsSource("processes", serve + only(deploy, {"supervisor"}), "processes.txt", *hosts))
    own = (tuple(dict.fromkeys((options.own_python, *options.pythons))), options.machine)
    return [*found, WheelsSource("controller", deploy, "deploy.txt", *own)]
