"""What the formats share: addresses, weights, and what a format cannot say."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from modelyard.catalog.loader import load_engines
from modelyard.registry.model import NO_LIMITS, Endpoint, Model

HEADER = "Made by Modelyard from its endpoint registry: changes here are lost."

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}")


@dataclass(frozen=True, slots=True)
class Address:
    """An endpoint's address in parts. ``host`` is a name or an IP address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """``host:port``, with brackets for IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_ipv4(self) -> bool:
        """Whether the host is a literal IPv4 address."""
        try:
            return ipaddress.ip_address(self.host).version == 4
        except ValueError:
            return False


def address_of(endpoint: Endpoint) -> Address | None:
    """Where it answers, or None for a host that could mean something in another program's syntax."""
    parts = urlsplit(endpoint.url)
    host = parts.hostname or ""
    if not _NAME.fullmatch(host):
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return None
        if "%" in host:
            return None
    return Address(
        parts.scheme,
        host,
        parts.port or (443 if parts.scheme == "https" else 80),
        parts.path.rstrip("/"),
    )


def word(text: str) -> str:
    """The text as a name that no syntax here takes for anything else."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def comment(text: str) -> str:
    """The text as one line of a comment, printable characters only."""
    return "# " + "".join(sign if sign.isprintable() else " " for sign in text)


def live_paths(model: Model) -> set[str]:
    """The paths under which the engines of a model say that they live."""
    engines = load_engines()
    return {engines[item.engine].live_path for item in model.endpoints if item.engine in engines}


def shares(model: Model) -> dict[str, float]:
    """Each active endpoint's share of the requests by its id, any scale; 0 for one that gets none.

    Between the tracks as ``canary_percent`` says, within a track by weight. A track without an active endpoint
    leaves its share to the other.
    """
    active = [item for item in model.endpoints if item.state == "active"]
    canary = [item for item in active if item.track == "canary"]
    stable = [item for item in active if item.track != "canary"]
    if not canary or not stable:
        return {item.id: item.weight for item in active}
    found: dict[str, float] = {}
    for track, percent in ((stable, 100 - model.canary_percent), (canary, model.canary_percent)):
        total = sum(item.weight for item in track)
        found.update({item.id: item.weight * percent / total for item in track})
    return found


def whole(parts: dict[str, float], most: int) -> dict[str, int]:
    """Shares as whole numbers from 1 to ``most`` in the same proportion; 0 stays 0."""
    if all(value == int(value) and value <= most for value in parts.values()):
        return {name: int(value) for name, value in parts.items()}
    largest = max(parts.values())
    return {
        name: max(1, round(value / largest * min(most, 100))) if value else 0 for name, value in parts.items()
    }


def unsaid(model: Model, *, weights: bool = True) -> Iterator[str]:
    """What the model wishes and no other program here does, one sentence each."""
    if model.clients:
        yield f"{model.id}: clients are not kept out, and the registry names who may use it"
    if model.limits != NO_LIMITS:
        yield f"{model.id}: its limits are not kept"
    if weights and model.policy in ("session_hash", "prefix_hash"):
        yield f"{model.id}: its policy {model.policy} needs the request's body; the least loaded replica is taken"
    if model.mirror is not None:
        yield f"{model.id}: requests are not mirrored to {model.mirror.model}"


def _renamed(model: Model, endpoints: Collection[Endpoint]) -> Iterator[str]:
    """A remark on replicas that know the model by another name than its id."""
    names = sorted({item.served_name for item in endpoints} - {model.id})
    if names:
        yield f"{model.id}: its replicas want the model name {', '.join(names)} in requests"


Servers = Sequence[tuple[Endpoint, Address]]


def balancer(models: Collection[Model], section: Callable[[Model, Servers], Iterator[str]]) -> str:
    """A load balancer's file: for each model remarks, then its section with the replicas it can name."""
    lines = [comment(HEADER)]
    for model in models:
        remarks: list[str] = []
        servers = _usable(model, remarks)
        remarks += [*unsaid(model), *_renamed(model, [item for item, _ in servers])]
        lines += ["", *map(comment, remarks), *section(model, servers)]
    return "\n".join(lines) + "\n"


def _usable(model: Model, remarks: list[str]) -> Servers:
    """The endpoints that a load balancer can name; a remark on each that it cannot."""
    found = []
    for item in model.endpoints:
        address = address_of(item)
        if address is None:
            remarks.append(f"{item.id}: left out, its host is no plain name or address")
        elif address.path:
            remarks.append(f"{item.id}: left out, it answers below the path {address.path}")
        else:
            found.append((item, address))
    return found
