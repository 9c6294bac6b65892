"""Checks of models against the hosts that they may be placed on."""

from __future__ import annotations

import re
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.inventory.adoption import adopted, check_adopting_hosts
from modelyard.inventory.fleet import Engines, is_address, port_range
from modelyard.inventory.pins import check_pinned_hosts
from modelyard.inventory.problems import Problem, nearest, some
from modelyard.inventory.source import mapping

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HostView:
    """One engine or proxy host. ``given`` are its own ``fleet_*`` variables, ``settings`` all with
    defaults.
    """

    name: str
    given: Settings
    settings: Settings
    runs_engines: bool = True
    runs_proxy: bool = False

    @property
    def gpus(self) -> int:
        """Number of GPUs that may be given to models."""
        value = self.settings["fleet_gpus"]
        return len(value) if isinstance(value, list | tuple) else int(value)

    @property
    def ports(self) -> int:
        """Number of ports that engines may use."""
        bounds = port_range(self.settings["fleet_ports"])
        return bounds[1] - bounds[0] + 1 if bounds else 0


@dataclass(frozen=True, slots=True)
class Resolved:
    """What Ansible made of the host patterns: pattern -> host names, and every name that a pattern may
    hold.
    """

    patterns: Mapping[str, Sequence[str]]
    names: frozenset[str] = field(default_factory=frozenset)


def check_hosts(hosts: Mapping[str, HostView]) -> Iterator[Problem]:
    """Settings of one host that do not fit together."""
    for host in hosts.values():
        if not host.runs_engines:
            continue
        address = str(host.settings["fleet_address"])
        if host.settings["fleet_runtime"] == "docker" and not is_address(address):
            yield Problem(
                "address-is-name",
                f"Docker publishes ports on an IP address, and {address!r} is a name.",
                ("fleet_address",),
                "Set fleet_address of this host to the IP address that proxies use.",
                host=host.name,
            )
        bounds = port_range(host.settings["fleet_ports"])
        proxy = host.settings["fleet_proxy_port"]
        if host.runs_proxy and bounds and isinstance(proxy, int) and bounds[0] <= proxy <= bounds[1]:
            yield Problem(
                "ports-overlap",
                f"the proxy's port {proxy} lies among the engines' {host.settings['fleet_ports']}.",
                ("fleet_ports",),
                "Choose another fleet_proxy_port or another range.",
                host=host.name,
            )


def check_placement(
    models: Sequence[tuple[int, Mapping[str, Any]]],
    hosts: Mapping[str, HostView],
    resolved: Resolved,
    engines: Engines,
) -> Iterator[Problem]:
    """Models that no host can run, or that ask for more than there is.

    ``models`` are pairs of the place in the list and the model with defaults, well-formed ones only.
    """
    able: dict[int, list[HostView]] = {}
    for at, model in models:
        found = yield from _matching(at, model, hosts, resolved)
        yield from check_adopting_hosts(at, model, [host.name for host in found], resolved.names)
        declared = {host.name: host.settings["fleet_gpus"] for host in found}
        yield from check_pinned_hosts(at, model, declared, resolved.names)
        if found and _to_place(model) > 0:
            able[at] = yield from _able(at, model, found, engines)
    demanding = [(at, model) for at, model in models if able.get(at)]
    short = False
    for at, model in demanding:
        for problem in _capacity(at, model, able[at]):
            short = True
            yield problem
    if not short:
        yield from _together(demanding, able)


def _matching(
    at: int,
    model: Mapping[str, Any],
    hosts: Mapping[str, HostView],
    resolved: Resolved,
) -> Generator[Problem, None, list[HostView]]:
    pattern = model["placement"]["hosts"]
    path = ("models", at, "placement", "hosts")
    unknown = unknown_terms(pattern, resolved.names)
    for term in unknown:
        yield Problem(
            "unknown-host",
            f"{term!r} is neither a host nor a group of the inventory.",
            path,
            nearest(term, resolved.names),
            model=model["id"],
        )
    names = resolved.patterns.get(pattern, ())
    engine_hosts = [hosts[name] for name in names if name in hosts and hosts[name].runs_engines]
    if not names and not unknown:
        yield Problem(
            "no-host",
            f"no host matches {pattern!r}.",
            path,
            "Put hosts into the group or change the pattern.",
            model=model["id"],
        )
    elif names and not engine_hosts:
        yield Problem(
            "not-an-engine-host",
            f"{some(names)} match{'es' if len(names) == 1 else ''} {pattern!r}, "
            "but are not in the group engine_hosts.",
            path,
            "Add the hosts to engine_hosts or change the pattern.",
            model=model["id"],
        )
    return engine_hosts


def patterns_of(models: Any) -> list[str]:
    """Every host pattern that the models use, each once; malformed models are passed over."""
    found = set()
    for model in models if isinstance(models, list | tuple) else ():
        placement = mapping(mapping(model).get("placement"))
        pattern = placement.get("hosts", "engine_hosts")
        if isinstance(pattern, str) and pattern:
            found.add(pattern)
    return sorted(found)


def unknown_terms(pattern: str, names: Collection[str]) -> list[str]:
    """Plain names in a pattern that are neither a host nor a group."""
    return [term for term in _terms(pattern) if term not in names]


def _terms(pattern: str) -> list[str]:
    """The plain host and group names in a pattern; wildcards, ranges and regular expressions left out."""
    if pattern.startswith("~"):
        return []
    words = [word.lstrip("!&") for word in re.split(r"[:,]", pattern)]
    return [word.strip() for word in words if word.strip() and not re.search(r"[*?\[\]~]", word)]


def _able(
    at: int,
    model: Mapping[str, Any],
    hosts: Sequence[HostView],
    engines: Engines,
) -> Generator[Problem, None, list[HostView]]:
    """Return the hosts that can run the model as such; yield a problem when there is none."""
    reasons: dict[tuple[str, str, str, str], list[str]] = {}
    able = []
    for host in hosts:
        reason = _obstacle(model, host, engines)
        if reason is None:
            able.append(host)
        else:
            reasons.setdefault(reason, []).append(host.name)
    if not able:
        for (code, key, text, hint), names in reasons.items():
            yield Problem(
                code, f"{text} ({some(names)}).", ("models", at, *key.split(".")), hint, model=model["id"]
            )
    return able


def _obstacle(model: Mapping[str, Any], host: HostView, engines: Engines) -> tuple[str, str, str, str] | None:
    """Code, field, what is wrong, and a hint; None when the host can run the model."""
    name, data = model["engine"], engines[model["engine"]]
    runtime = model["runtime"] or host.settings["fleet_runtime"]
    accelerator, gpus = host.settings["fleet_accelerator"], model["placement"]["gpus"]
    if runtime not in data["runtimes"]:
        return (
            "engine-runtime",
            "runtime" if model["runtime"] else "engine",
            f"{name} runs only as {' or '.join(data['runtimes'])}, and the host's runtime is {runtime}",
            "Place it on hosts with fleet_runtime: docker, or choose the engine echo for a trial.",
        )
    if gpus > 0 and accelerator == "cpu":
        return (
            "accelerator-mismatch",
            "placement.gpus",
            f"asks for {gpus} GPU{'s' if gpus > 1 else ''}, and fleet_accelerator is cpu",
            "Set gpus: 0 to run on the processor, or set fleet_accelerator and fleet_gpus of the host.",
        )
    if gpus == 0 and accelerator != "cpu" and data["images"] and not model["image"]:
        return (
            "accelerator-mismatch",
            "placement.gpus",
            f"asks for no GPU, and the {accelerator} image of {name} needs one",
            "Set gpus to 1 or more, or name an image that runs on the processor.",
        )
    own = host.settings["fleet_images"].get(name, {}) if host.settings["fleet_images"] else {}
    if runtime == "docker" and not (
        model["image"] or own.get(accelerator) or data["images"].get(accelerator)
    ):
        return (
            "no-image",
            "image",
            f"{name} has no image for {accelerator} in docker",
            f"Name one in the model's image or in fleet_images.{name}.{accelerator}"
            + (", or set runtime: process." if "process" in data["runtimes"] else "."),
        )
    return None


def _to_place(model: Mapping[str, Any]) -> int:
    """Replicas that need a place of their own: adopted containers have theirs, shared GPUs and odd ports included."""
    return max(0, int(model["placement"]["replicas"]) - adopted(model))


def _capacity(at: int, model: Mapping[str, Any], hosts: Sequence[HostView]) -> Iterator[Problem]:
    """One model against its own hosts."""
    replicas, gpus = _to_place(model), model["placement"]["gpus"]
    if gpus > 0:
        room = sum(host.gpus // gpus for host in hosts)
        if room < replicas:
            have = some(f"{host.name} {host.gpus}" for host in hosts)
            whole = f"{replicas} replica{'s' if replicas > 1 else ''} x {gpus} GPU{'s' if gpus > 1 else ''}"
            yield Problem(
                "not-enough-gpus",
                f"asks for {whole} = {replicas * gpus}, and its {len(hosts)} host"
                f"{'s have' if len(hosts) > 1 else ' has'} {sum(host.gpus for host in hosts)} GPUs ({have}): "
                f"room for {room}.",
                ("models", at, "placement", "gpus" if room == 0 else "replicas"),
                "Lower replicas or gpus, or add hosts.",
                model=model["id"],
            )
            return
    ports = sum(host.ports for host in hosts)
    if ports < replicas:
        yield Problem(
            "not-enough-ports",
            f"asks for {replicas} replicas, and fleet_ports leaves its hosts {ports} port"
            f"{'s' if ports != 1 else ''} in all.",
            ("models", at, "placement", "replicas"),
            "Widen fleet_ports.",
            model=model["id"],
        )


def _together(
    demanding: Sequence[tuple[int, Mapping[str, Any]]],
    able: Mapping[int, Sequence[HostView]],
) -> Iterator[Problem]:
    """All models against all their hosts: each fits alone, the sum may not."""
    hosts = {host.name: host for at, _ in demanding for host in able[at]}
    for kind, unit, have in (
        ("gpus", "GPUs", sum(host.gpus for host in hosts.values())),
        ("ports", "ports", sum(host.ports for host in hosts.values())),
    ):
        needs = [
            (
                at,
                model,
                _to_place(model) * (model["placement"]["gpus"] if kind == "gpus" else 1),
            )
            for at, model in demanding
        ]
        total = sum(need for *_, need in needs)
        if total > have:
            largest = sorted(needs, key=lambda item: (-item[2], item[1]["id"]))
            at, model, _ = largest[0]
            listed = some(f"{item['id']} {need}" for _, item, need in largest if need)
            yield Problem(
                f"not-enough-{kind}",
                f"all models together ask for {total} {unit} ({listed}), and the hosts have {have}.",
                ("models", at, "placement", "gpus" if kind == "gpus" else "replicas"),
                "Lower replicas, or add hosts." if kind == "gpus" else "Widen fleet_ports.",
                model=model["id"],
            )
