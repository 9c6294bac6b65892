"""LiteLLM's ``model_list``, with its aliases and fallbacks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from modelyard.registry.exports.common import HEADER, address_of, comment, shares, unsaid
from modelyard.registry.model import Endpoint, Model
from modelyard.yaml_text import yaml_text

_MODES = {
    "generate": "chat",
    "embed": "embedding",
    "rerank": "rerank",
    "transcribe": "audio_transcription",
    "speech": "audio_speech",
}
_STRATEGIES = {"least_loaded": "least-busy"}


def litellm(models: Collection[Model]) -> str:
    """A part of LiteLLM's ``config.yaml``: only replicas that take requests; the others are left out.

    Aliases and fallbacks stand in ``router_settings``. LiteLLM has one routing strategy for all models: it is
    named when all of them agree.
    """
    remarks: list[str] = []
    entries: list[dict[str, Any]] = []
    for model in models:
        remarks += unsaid(model)
        parts = shares(model)
        for item in model.endpoints:
            if not parts.get(item.id):
                continue
            address = address_of(item)
            if address is None:
                remarks.append(f"{item.id}: left out, its host is no plain name or address")
                continue
            base = f"{address.scheme}://{address.authority}{address.path}"
            entries.append(_entry(model, item, base, parts[item.id]))
    document: dict[str, Any] = {"model_list": entries}
    router = _router(models)
    if router:
        document["router_settings"] = router
    lines = [comment(HEADER), *(comment(remark) for remark in remarks)]
    return "\n".join(lines) + "\n" + yaml_text(document)


def _entry(model: Model, item: Endpoint, base: str, weight: float) -> dict[str, Any]:
    # rerank has no route in OpenAI's API, so LiteLLM asks for it as vLLM's; the engines here need no key
    provider = "hosted_vllm" if model.task == "rerank" else "openai"
    params: dict[str, Any] = {
        "model": f"{provider}/{item.served_name}",
        "api_base": base if model.task == "rerank" else f"{base}/v1",
        "api_key": "none",
        "weight": int(weight) if weight == int(weight) else round(weight, 3),
    }
    if item.max_in_flight is not None:
        params["max_parallel_requests"] = item.max_in_flight
    if item.tier:
        params["order"] = item.tier + 1
    elif any(other.tier for other in model.endpoints):
        params["order"] = 1
    entry: dict[str, Any] = {"model_name": model.id, "litellm_params": params, "model_info": {"id": item.id}}
    if model.task in _MODES:
        entry["model_info"]["mode"] = _MODES[model.task]
    return entry


def _router(models: Collection[Model]) -> dict[str, Any]:
    router: dict[str, Any] = {}
    aliases = {alias: model.id for model in models for alias in model.aliases}
    if aliases:
        router["model_group_alias"] = aliases
    fallbacks = [{model.id: list(model.fallbacks)} for model in models if model.fallbacks]
    if fallbacks:
        router["fallbacks"] = fallbacks
    policies = {model.policy for model in models}
    if len(policies) == 1 and (strategy := _STRATEGIES.get(policies.pop())):
        router["routing_strategy"] = strategy
    return router
