"""vLLM production-stack: values of its Helm chart, and the router's static list of backends."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from modelyard.importing.box import MOST_GPUS, Box, Gpus, in_bytes, instance, pairs
from modelyard.importing.found import Endpoint, Found, UnreadableError, mapped, strings
from modelyard.importing.reading import Document
from modelyard.registry.check import url_fault

# Keys of vllmConfig that are flags of the same name; the template of the chart adds no others.
_FLAGS = {
    "enablePrefixCaching": "--enable-prefix-caching", "enableChunkedPrefill": "--enable-chunked-prefill",
    "maxModelLen": "--max-model-len", "dtype": "--dtype", "maxNumSeqs": "--max-num-seqs",
    "tensorParallelSize": "--tensor-parallel-size", "pipelineParallelSize": "--pipeline-parallel-size",
    "gpuMemoryUtilization": "--gpu-memory-utilization", "maxLoras": "--max-loras",
    "maxNumBatchedTokens": "--max-num-batched-tokens",
}  # fmt: skip
_IGNORED = {"v0", "v1", "extraArgs"}
_UNSUPPORTED = ("lmcacheConfig", "loraAdapters", "enableLoRA", "keda", "sidecar", "initContainer", "raySpec")
_CAMEL = (("staticBackends", "static_backends"), ("staticModels", "static_models"))


def from_values(text: str, file: str) -> Found:
    """Engines of ``servingEngineSpec.modelSpec``, addresses of static backends. Raises ``UnreadableError``."""
    document = Document(text, file)
    top = document.mapping()
    found = Found()
    engines, router = mapped(top.get("servingEngineSpec")), mapped(top.get("routerSpec"))
    known = False
    specs = engines.get("modelSpec")
    if isinstance(specs, list):
        known = True
        for number, spec in enumerate(specs):
            where = document.at("servingEngineSpec", "modelSpec", number)
            if not isinstance(spec, Mapping) or not spec.get("modelURL"):
                raise UnreadableError(f"{where}: an entry of modelSpec has a name and a modelURL.")
            _spec(spec, f"{where}: {spec.get('name') or spec['modelURL']}", found)
    for holder, path in ((router, ("routerSpec",)), (top, ())):
        key = next((name for name in _CAMEL[0] if name in holder), None)
        if key is not None:
            known = True
            _static(holder, document.at(*path, key), found)
    if not known:
        raise UnreadableError(
            f"{file}: has neither servingEngineSpec.modelSpec (values of the chart) nor static_backends (the "
            "router's list)."
        )
    if engines.get("vllmApiKey"):
        found.remarks.append(
            f"{document.at('servingEngineSpec', 'vllmApiKey')}: vllmApiKey is not taken over: engines listen on the "
            "private address alone"
        )
    return found


def _spec(spec: Mapping[str, Any], origin: str, found: Found) -> None:
    if spec.get("enabled") is False:
        found.skipped.append(f"{origin}: is not enabled")
        return
    config = mapped(spec.get("vllmConfig"))
    flags, remarks = _flags(config)
    env = pairs({str(mapped(one).get("name")): mapped(one).get("value") for one in _list(spec.get("env"))})
    remarks += [
        f"the variable {mapped(one).get('name')} comes from a secret of Kubernetes: add it by hand"
        for one in _list(spec.get("env"))
        if mapped(one).get("valueFrom")
    ]
    token = spec.get("hf_token")
    if isinstance(token, str) and token:
        env["HF_TOKEN"] = token
    elif token:
        remarks.append("hf_token is a secret of Kubernetes: fleet_hub_token_file is its place here")
    remarks += [f"{key} is not taken over" for key in _UNSUPPORTED if spec.get(key)]
    gpus = spec.get("requestGPU", 0)
    count = int(gpus) if str(gpus).isdigit() else 0
    image = str(spec.get("repository") or "vllm/vllm-openai")
    box = Box(
        origin=origin,
        name=str(spec.get("name") or spec["modelURL"]),
        image=f"{image}:{spec['tag']}" if spec.get("tag") else image,
        words=["vllm", "serve", str(spec["modelURL"]), *flags],
        env=env,
        gpus=Gpus(count, (), "nvidia") if count else Gpus(),
        shm_bytes=in_bytes(spec.get("shmSize")) if spec.get("shmSize") else None,
        memory_bytes=in_bytes(spec.get("limitMemory")) if spec.get("limitMemory") else None,
        remarks=remarks,
    )
    made = instance(box, found)
    if made is None:
        return
    item = made[0]
    replicas = spec.get("replicaCount", 1)
    item.replicas = replicas if isinstance(replicas, int) and not isinstance(replicas, bool) else 1
    item.gpus = max(item.gpus, min(count, MOST_GPUS))
    if spec.get("pvcStorage"):
        item.remarks.append(
            "its claim for storage is not taken over: weights lie in fleet_weights_dir of each host"
        )
    found.instances.append(item)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _flags(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    flags, remarks = [], []
    for key, value in config.items():
        flag = _FLAGS.get(key)
        if flag is None:
            if key not in _IGNORED:
                remarks.append(f"vllmConfig.{key} is not known here and is left out")
        elif value is True:
            flags.append(flag)
        elif value is False:
            flags.append(f"--no-{flag[2:]}")
        elif value not in (None, ""):
            flags += [flag, str(value)]
    for word in strings(config.get("extraArgs")):
        flags += shlex.split(word) if re.search(r"\s", word) and not word.startswith("{") else [word]
    return flags, remarks


def _static(holder: Mapping[str, Any], where: str, found: Found) -> None:
    values = [_words(holder.get(camel, holder.get(snake))) for camel, snake in _CAMEL]
    urls, models = values
    if len(models) != len(urls):
        raise UnreadableError(
            f"{where}: names {len(urls)} backends and {len(models)} models: each backend has its model."
        )
    for url, model in zip(urls, models, strict=True):
        plain = url.rstrip("/").removesuffix("/v1")
        fault = url_fault(plain)
        if fault is not None:
            found.skipped.append(f"{where}: a backend {fault}")
            continue
        found.endpoints.append(Endpoint(where, plain, "vllm", model, model))
    aliases = holder.get("static_aliases", holder.get("staticAliases"))
    for pair in _words(aliases):
        alias, _, target = pair.partition(":")
        if target:
            found.aliases[alias] = target


def _words(value: Any) -> list[str]:
    """A list, or words between commas."""
    items = value.split(",") if isinstance(value, str) else strings(value)
    return [item.strip() for item in items if item.strip()]
