"""What changed between two registries."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .model import Endpoint, Registry


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


def diff(old: Registry, new: Registry) -> RegistryDiff:
    """What has to happen to get from ``old`` to ``new``.

    A model counts as changed for its own fields; its endpoints are told by their own ids. An endpoint that
    moved to another model counts as changed.
    """
    shared = old.models.keys() & new.models.keys()
    before, after = _endpoints(old), _endpoints(new)
    kept = before.keys() & after.keys()
    return RegistryDiff(
        models_added=tuple(sorted(new.models.keys() - shared)),
        models_removed=tuple(sorted(old.models.keys() - shared)),
        models_changed=tuple(
            sorted(
                name
                for name in shared
                if replace(old.models[name], endpoints=()) != replace(new.models[name], endpoints=())
            )
        ),
        endpoints_added=tuple(sorted(after.keys() - kept)),
        endpoints_removed=tuple(sorted(before.keys() - kept)),
        endpoints_changed=tuple(sorted(name for name in kept if before[name] != after[name])),
    )


def _endpoints(registry: Registry) -> dict[str, tuple[str, Endpoint]]:
    return {
        endpoint.id: (model.id, endpoint)
        for model in registry.models.values()
        for endpoint in model.endpoints
    }
