"""What a valid registry says, as frozen objects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

# What clients of TGI send when they mean "the model you serve": `tgi` by text-generation, `dummy` by
# huggingface_hub.
DEFAULT_MODEL_NAMES = frozenset({"tgi", "dummy"})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one request, in seconds; ``total_s`` 0 means no limit."""

    connect_s: float = 5.0
    first_byte_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for; ``None``: what the engine allows.

    ``max_tokens`` of one answer, ``n`` and ``best_of`` answers to one prompt, ``prompts`` (or inputs, or
    documents) in one request, ``logprobs`` told for each token, ``body_bytes`` of the request.
    """

    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None
    prompts: int | None = None
    logprobs: int | None = None
    body_bytes: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Queue:
    """Where requests wait while no replica can take one: at most ``size``, each at most ``wait_s`` seconds."""

    size: int = 64
    wait_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Mirror:
    """``percent`` of the requests are copied to the model with the id ``model``."""

    model: str
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica: where it answers and how it wants to be treated. ``url`` has no trailing slash."""

    id: str
    url: str
    engine: str
    served_name: str
    weight: float = 1.0
    state: str = "active"
    host: str | None = None
    expires_at: datetime | None = None
    tier: int = 0
    track: str = "stable"
    max_in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One model with its replicas. ``queue`` is ``None`` where the registry leaves it to the proxy."""

    id: str
    name: str
    hf_name: str | None = None
    task: str = "generate"
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    policy: str = "least_loaded"
    timeouts: Timeouts = Timeouts()
    limits: Limits = NO_LIMITS
    queue: Queue | None = None
    canary_percent: float = 0.0
    mirror: Mirror | None = None
    clients: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Registry:
    """A whole registry. ``models`` keeps the file's order; names are unique over ids and aliases."""

    generation: int = 0
    models: Mapping[str, Model] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def resolve(self, name: str) -> Model | None:
        """The model that a client means by ``name``: an id, an alias, or a name that stands for the default
        model.
        """
        model = self.models.get(name)
        if model is None:
            target = self.aliases.get(name)
            if target is not None:
                return self.models[target]
            if name in DEFAULT_MODEL_NAMES:
                return self.default()
        return model

    def default(self) -> Model | None:
        """The only, or first, model that generates."""
        return next((model for model in self.models.values() if model.task == "generate"), None)

    def names(self) -> list[str]:
        """Every id and alias."""
        return [*self.models, *self.aliases]
