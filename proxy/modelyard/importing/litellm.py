"""Entries of LiteLLM's ``model_list`` that lead to engines of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from modelyard.importing.found import Endpoint, Found, UnreadableError, mapped
from modelyard.importing.reading import Document
from modelyard.registry.check import url_fault

# Providers whose api_base is a server that speaks OpenAI's API, or TGI's.
_OPENAI = ("openai", "hosted_vllm", "vllm", "text-completion-openai", "openai_like", "litellm_proxy")
_TGI = ("huggingface", "text-generation-inference")
_MODES = {
    "chat": "generate", "completion": "generate", "responses": "generate", "embedding": "embed",
    "rerank": "rerank", "audio_transcription": "transcribe", "audio_speech": "speech",
}  # fmt: skip
_HOSTED = re.compile(
    r"(^|\.)(openai\.com|azure\.com|anthropic\.com|googleapis\.com|amazonaws\.com|mistral\.ai|groq\.com"
    r"|together\.(ai|xyz)|openrouter\.ai|huggingface\.co|deepseek\.com|cohere\.com)$"
)


def from_config(text: str, file: str) -> Found:
    """Addresses of engines; entries of hosted services are told and left out. Raises ``UnreadableError``."""
    document = Document(text, file)
    top = document.mapping()
    entries = top.get("model_list")
    if not isinstance(entries, list):
        raise UnreadableError(
            f"{document.at('model_list')}: LiteLLM's configuration has a list `model_list`."
        )
    found = Found()
    for number, entry in enumerate(entries):
        where = document.at("model_list", number)
        if not isinstance(entry, Mapping) or not isinstance(entry.get("litellm_params"), Mapping):
            raise UnreadableError(f"{where}: an entry of model_list has model_name and litellm_params.")
        _entry(entry, where, found)
    router, settings = mapped(top.get("router_settings")), mapped(top.get("litellm_settings"))
    for alias, target in mapped(router.get("model_group_alias")).items():
        name = target.get("model") if isinstance(target, Mapping) else target
        found.aliases[str(alias)] = str(name)
    for item in [*_list(router.get("fallbacks")), *_list(settings.get("fallbacks"))]:
        for name, others in mapped(item).items():
            found.fallbacks.setdefault(str(name), []).extend(str(other) for other in _list(others))
    if mapped(top.get("general_settings")).get("master_key"):
        found.remarks.append(
            f"{document.at('general_settings')}: keys and users of LiteLLM are not taken over"
        )
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _entry(entry: Mapping[str, Any], where: str, found: Found) -> None:
    params = mapped(entry["litellm_params"])
    name, model = str(entry.get("model_name") or ""), str(params.get("model") or "")
    origin = f"{where}: {name or model}"
    provider, slash, served = model.partition("/")
    base = params.get("api_base") or params.get("base_url")
    if not base:
        found.skipped.append(f"{origin}: {provider or 'it'} is a hosted service, or has no api_base")
        return
    if str(base).startswith("os.environ/"):
        found.skipped.append(f"{origin}: its api_base is in the environment ({base}): write the address")
        return
    if provider not in (*_OPENAI, *_TGI):
        found.skipped.append(f"{origin}: {provider} is no engine that Modelyard knows")
        return
    url = str(base).rstrip("/")
    url = re.sub(r"/v1$", "", url)
    fault = url_fault(url)
    if fault is not None:
        found.skipped.append(f"{origin}: its api_base {fault}")
        return
    if _HOSTED.search((urlsplit(url).hostname or "").lower()):
        found.skipped.append(f"{origin}: {urlsplit(url).hostname} is a hosted service")
        return
    if "*" in name or "*" in served or not name:
        found.skipped.append(f"{origin}: a name with * stands for many models; write each one")
        return
    key = str(params.get("api_key") or "")
    if key and key.lower() not in ("none", "empty", "dummy", "fake", "fake-key", "sk-fake", "-", "no-key"):
        found.remarks.append(f"{origin}: its engine may want a key (api_key), and the proxy has none to give")
    mode = str(mapped(entry.get("model_info")).get("mode") or "chat")
    if mode not in _MODES:
        found.skipped.append(f"{origin}: the mode {mode} has no task here")
        return
    weight = params.get("weight")
    sound = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight <= 1000
    found.endpoints.append(
        Endpoint(
            origin=origin,
            url=url,
            engine="tgi" if provider in _TGI else "vllm",
            model=name,
            served_name=(served if slash else model)[:500],
            task=_MODES[mode],
            weight=weight if sound and weight is not None else 1,
        )
    )
    if provider not in (*_TGI, "hosted_vllm", "vllm"):
        found.remarks.append(
            f"{origin}: it speaks OpenAI's API and is taken for vLLM; correct engine if it is not"
        )
