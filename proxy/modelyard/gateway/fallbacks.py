"""Which models stand in for one another."""

from __future__ import annotations

from collections.abc import Iterator

from modelyard.registry.model import Model, Registry


def fallback_chain(registry: Registry, model: Model) -> Iterator[Model]:
    """``model``, its fallbacks in order, then theirs; each once."""
    seen = {model.id}
    queue = [model]
    while queue:
        current = queue.pop(0)
        yield current
        for name in current.fallbacks:
            following = registry.models.get(name)
            # a model reserved for certain clients is not reached through one that is for everyone
            if following is not None and not following.clients and name not in seen:
                seen.add(name)
                queue.append(following)
