"""A registry from environment variables alone: ``TGI_<NAME>_ENDPOINT=http://host:port``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from modelyard.catalog.loader import load_engines
from modelyard.errors import ConfigError

from .check import check
from .load import build
from .model import Registry

_VARIABLE = re.compile(r"TGI_([A-Za-z0-9_]+)_ENDPOINT")
# variable part -> model id, name, name on the hub
_KNOWN = {
    "GPT2": ("gpt-2", "GPT-2", "gpt2"),
    "TINYLLAMA": ("tinyllama", "TinyLlama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    "MISTRAL": ("mistral", "Mistral 7B", "mistralai/Mistral-7B-Instruct-v0.2"),
}


def from_environment(environment: Mapping[str, str]) -> Registry:
    """One model with one TGI endpoint for each variable, in the order of their names; empty variables do not
    count.

    Raises ``ConfigError`` naming every variable that is wrong, or saying what to set when there is none.
    """
    models: dict[str, Any] = {}
    variables: dict[str, str] = {}
    problems: list[str] = []
    for variable in sorted(environment):
        match = _VARIABLE.fullmatch(variable)
        url = environment[variable].strip()
        if match is None or not url:
            continue
        plain = match[1].lower().replace("_", "-").strip("-")
        model_id, name, hub = _KNOWN.get(match[1].upper(), (plain, plain, None))
        if model_id in models:
            problems.append(
                f"{variable}: names model {model_id} again, as {variables[model_id]} does; unset one"
            )
            continue
        variables[model_id] = variable
        models[model_id] = {
            "name": name,
            "hf_name": hub,
            "endpoints": [{"id": f"env.{model_id}.0", "url": url, "engine": "tgi"}],
        }
    if not models and not problems:
        raise ConfigError(
            "there is nothing to serve: give a registry (--registry FILE) or set TGI_<NAME>_ENDPOINT=http://host:port"
        )
    data = {"version": 1, "models": models}
    for problem in check(data, "environment", load_engines().keys()):
        problems.append(f"{variables.get(problem.model or '', 'environment')}: {problem.message}")
    if problems:
        raise ConfigError("the TGI_<NAME>_ENDPOINT variables are wrong", problems)
    return build(data, models.items())
