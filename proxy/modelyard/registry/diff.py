"""What changed between two registries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .model import Endpoint, Model, Registry


@dataclass(frozen=True, slots=True)
class RegistryDiff:
    """Names of what came, went or changed; each tuple is sorted."""

    models_added: tuple[str, ...] = ()
    models_removed: tuple[str, ...] = ()
    models_changed: tuple[str, ...] = ()
    endpoints_added: tuple[str, ...] = ()
    endpoints_removed: tuple[str, ...] = ()
    endpoints_changed: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing changed but, perhaps, the generation."""
        return self == RegistryDiff()

    @property
    def size(self) -> int:
        """How many endpoints came, went or changed."""
        return len(self.endpoints_added) + len(self.endpoints_removed) + len(self.endpoints_changed)

    def __str__(self) -> str:
        rows = {
            "models added": self.models_added,
            "models removed": self.models_removed,
            "models changed": self.models_changed,
            "endpoints added": self.endpoints_added,
            "endpoints removed": self.endpoints_removed,
            "endpoints changed": self.endpoints_changed,
        }
        return (
            "; ".join(f"{label}: {', '.join(names)}" for label, names in rows.items() if names) or "no change"
        )


def diff(old: Registry, new: Registry, pause: Callable[[], None] | None = None) -> RegistryDiff:
    """What has to happen to get from ``old`` to ``new``.

    A model counts as changed for its own fields; its endpoints are told by their own ids. An endpoint that
    moved to another model counts as changed. ``pause`` is called after each model: a large registry takes long.
    """
    rest = pause or _nothing
    shared = old.models.keys() & new.models.keys()
    before, after = _endpoints(old, rest), _endpoints(new, rest)
    kept = before.keys() & after.keys()
    models_changed, endpoints_changed = [], []
    for name in shared:
        rest()
        if _without_endpoints(old.models[name]) != _without_endpoints(new.models[name]):
            models_changed.append(name)
    for number, name in enumerate(kept):
        if not number % _OFTEN:
            rest()
        if before[name] != after[name]:
            endpoints_changed.append(name)
    return RegistryDiff(
        models_added=tuple(sorted(new.models.keys() - shared)),
        models_removed=tuple(sorted(old.models.keys() - shared)),
        models_changed=tuple(sorted(models_changed)),
        endpoints_added=tuple(sorted(after.keys() - kept)),
        endpoints_removed=tuple(sorted(before.keys() - kept)),
        endpoints_changed=tuple(sorted(endpoints_changed)),
    )


_OFTEN = 32


def _nothing() -> None:
    """No pause."""


def _without_endpoints(model: Model) -> Model:
    return replace(model, endpoints=())


def _endpoints(registry: Registry, rest: Callable[[], None]) -> dict[str, tuple[str, Endpoint]]:
    found: dict[str, tuple[str, Endpoint]] = {}
    for model in registry.models.values():
        rest()
        for endpoint in model.endpoints:
            found[endpoint.id] = (model.id, endpoint)
    return found
