"""The registry's truth for programs of others: load balancers, Prometheus, LiteLLM, llm-d.

Pure functions from a registry to a file's text. The text depends on the models alone, not on the generation,
so that what has not changed is not written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from modelyard.errors import ConfigError
from modelyard.registry.exports.haproxy import haproxy
from modelyard.registry.exports.litellm import litellm
from modelyard.registry.exports.nginx import nginx
from modelyard.registry.exports.targets import file_sd, llm_d
from modelyard.registry.model import Model, Registry

Renderer = Callable[[Collection[Model]], str]

FORMATS: Mapping[str, Renderer] = MappingProxyType(
    {"haproxy": haproxy, "nginx": nginx, "file_sd": file_sd, "litellm": litellm, "llm_d": llm_d}
)


def export(registry: Registry, form: str, only: Collection[str] = ()) -> str:
    """The file's text in one of ``FORMATS``, of the models with the ids in ``only``, else of all.

    Raises ``ConfigError`` for a format or a model that does not exist.
    """
    if form not in FORMATS:
        raise ConfigError(f"There is no export format {form!r}: choose one of {', '.join(FORMATS)}.")
    unknown = sorted(set(only) - set(registry.models))
    if unknown:
        raise ConfigError(
            f"The registry has no model {unknown[0]!r}; it has {', '.join(sorted(registry.models)) or 'none'}."
        )
    chosen = sorted(only) if only else sorted(registry.models)
    return FORMATS[form]([registry.models[name] for name in chosen])
