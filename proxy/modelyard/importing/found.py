"""What an import finds, before it becomes an inventory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.errors import ConfigError


class UnreadableError(ConfigError):
    """An input that cannot be understood at all; the message names the file and, where it is known, the line."""


@dataclass(slots=True)
class Instance:
    """One engine as somebody started it, or would.

    ``origin`` says where it was found, for messages. ``source`` is that of a model; None when it is not known.
    ``served`` are the names under which it knows its model, the first one its own. ``gpus`` is how many one replica
    needs, ``gpu_ids`` which ones where that is said. ``alive``: it runs now; ``container`` is set where it can be
    adopted, and ``address`` and ``port`` are then where it listens on its host. ``at_once`` is false for one that
    takes turns with others on the same GPUs.
    """

    origin: str
    engine: str
    image: str | None = None
    source: dict[str, str] | None = None
    served: tuple[str, ...] = ()
    task: str = "generate"
    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    gpus: int = 0
    gpu_ids: tuple[str, ...] = ()
    accelerator: str = "cpu"
    resources: dict[str, Any] = field(default_factory=dict)
    replicas: int = 1
    container: str | None = None
    address: str | None = None
    port: int | None = None
    name: str = ""
    aliases: tuple[str, ...] = ()
    alive: bool = False
    at_once: bool = True
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An engine that is known by its address alone. ``url`` has no path; ``model`` is what it serves."""

    origin: str
    url: str
    engine: str
    model: str
    served_name: str
    task: str = "generate"
    weight: float = 1
    aliases: tuple[str, ...] = ()


@dataclass(slots=True)
class Found:
    """Everything that one input gave: engines, addresses, and what was not understood."""

    instances: list[Instance] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    fallbacks: dict[str, list[str]] = field(default_factory=dict)


_SECRET_VALUE = re.compile(r"(hf_|sk-|ghp_|glpat-|xox[bp]-|AKIA)[A-Za-z0-9_-]{12,}")


def looks_secret(text: str) -> bool:
    """Whether a value is a token or key by its form."""
    return bool(_SECRET_VALUE.search(text))


def masked(lines: Iterable[str]) -> list[str]:
    """Lines without anything that looks like a token or key."""
    return [_SECRET_VALUE.sub("***", line) for line in lines]


@dataclass(slots=True)
class Vault:
    """Secrets on their way: each value gets a variable of the vault, equal values the same one."""

    names: dict[str, str] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)

    def reference(self, name: str, value: str, origin: str) -> str:
        """The template that stands for a secret; the value itself is kept nowhere."""
        key = hashlib.sha256(value.encode()).hexdigest()
        if key not in self.names:
            base = "vault_" + "".join(sign if sign.isalnum() else "_" for sign in name.lower())
            taken, number, chosen = set(self.names.values()), 2, base
            while chosen in taken:
                chosen, number = f"{base}_{number}", number + 1
            self.names[key] = chosen
        variable = self.names[key]
        self.where.setdefault(variable, []).append(f"{origin}: {name}")
        return "{{ " + variable + " }}"


def strings(value: Any) -> list[str]:
    """A list of words from a list, or from one word."""
    if value is None:
        return []
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [str(item) for item in value]
    return [str(value)]


def mapped(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
