"""A container of any description (inspected, in a compose file, in a ``docker run``) as an engine."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.catalog.loader import load_engines
from modelyard.importing import commands
from modelyard.importing.found import Found, Instance, looks_secret
from modelyard.inventory.adoption import is_secret_name

ReadText = Callable[[Path], str | None]
"""A file's text, or None for one that is not there or not to be read."""

MOST_GPUS = 64
_HUB = re.compile(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+")
_HEX40 = re.compile(r"[0-9a-f]{40}")
# Variables of the environment that engines, and the libraries under them, read.
_OURS = re.compile(
    r"(VLLM|HF|HUGGING_?FACE|TRANSFORMERS|NCCL|TORCH|PYTORCH|OMP|MKL|TRITON|FLASHINFER|RAY|TOKENIZERS|CUDA|LMCACHE"
    r"|GLOO|HIP|ROCM|HSA|LOG_LEVEL|RUST|FLASH|AWS|S3|http_|https_|no_|HTTP_|HTTPS_|NO_)"
)
# What images and container engines set by themselves, and what placement decides.
_NOISE = re.compile(
    r"(CUDA|NVIDIA|ROCR?)_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|CUDA_(VERSION|HOME|PATH)|NV_.*|NVIDIA_.*|NVARCH|"
    r"NCCL_VERSION|PYTORCH_ROCM_ARCH|ROCM_PATH|VLLM_USAGE_SOURCE|VLLM_BUILD_.*|TORCH_CUDA_ARCH_LIST|VLLM_IMAGE_.*"
)


@dataclass(slots=True)
class Gpus:
    """Which GPUs a container has: by ``ids``, or ``count`` of them (-1: all), of which kind."""

    count: int = 0
    ids: tuple[str, ...] = ()
    accelerator: str = "cpu"


@dataclass(slots=True)
class Box:
    """One container. ``words`` is its whole command line, ``mounts`` host directory by directory inside.

    ``env`` is what its starter set as far as ``env_is_exact``; else what the image sets is among it.
    """

    origin: str
    name: str
    image: str | None
    words: list[str]
    env: dict[str, str] = field(default_factory=dict)
    env_is_exact: bool = True
    mounts: dict[str, str] = field(default_factory=dict)
    gpus: Gpus = field(default_factory=Gpus)
    shm_bytes: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None
    remarks: list[str] = field(default_factory=list)


def instance(box: Box, found: Found, read_text: ReadText = lambda _path: None) -> tuple[Instance, int] | None:
    """The engine in a box with its port inside; None, and a word in ``found``, for a box without one we know.

    ``read_text`` looks into the hub's cache of this machine, where the container's lies on it.
    """
    try:
        words = commands.unwrapped(box.words)
    except ValueError as error:
        found.skipped.append(f"{box.origin}: its command cannot be read: {error}")
        return None
    engine = commands.engine_of(words, box.image)
    if engine is None:
        title = commands.unsupported(words, box.image)
        why = f"{title} is no engine that Modelyard runs" if title else "it runs no engine that is known here"
        found.skipped.append(f"{box.origin}: {why} (image {box.image or 'none'})")
        return None
    command = commands.parse(engine, commands.flags_of(engine, words), box.env)
    if command.model is None:
        found.skipped.append(f"{box.origin}: its command line does not say which model {engine} serves")
        return None
    if any(looks_secret(text) for text in (command.model, box.image or "", *command.served)):
        found.skipped.append(f"{box.origin}: what stands for its model or image looks like a secret")
        return None
    if command.gpus is not None and not 1 <= command.gpus <= MOST_GPUS:
        found.skipped.append(
            f"{box.origin}: it asks for {command.gpus} GPUs, and a replica has 1 to {MOST_GPUS}"
        )
        return None
    remarks = [*box.remarks, *command.remarks]
    # what an engine calls its model when it is not told: what it was given
    served = command.served or (command.model,)
    item = Instance(
        origin=box.origin,
        engine=engine,
        image=box.image,
        source=_source(command, box, read_text, remarks),
        served=served,
        task=command.task,
        args=command.args,
        env=_environment(box, engine, remarks),
        gpus=_gpus(command, box, remarks),
        gpu_ids=box.gpus.ids,
        accelerator=box.gpus.accelerator,
        resources=_resources(box, engine),
        name=box.name,
        remarks=remarks,
    )
    return item, command.port or 0


def _source(
    command: commands.Command, box: Box, read_text: ReadText, remarks: list[str]
) -> dict[str, str] | None:
    model = str(command.model)
    if model.startswith("/"):
        return {"path": _on_host(model, box, remarks)}
    if model.startswith(".") or (not _HUB.fullmatch(model) and not re.fullmatch(r"[A-Za-z0-9._-]+", model)):
        remarks.append(
            f"where {model!r} comes from cannot be said in the inventory; put the weights into a path"
        )
        return None
    source = {"hub": model}
    revision = command.revision or _cached_revision(model, box, read_text)
    if revision:
        source["revision"] = revision
    return source


def _on_host(path: str, box: Box, remarks: list[str]) -> str:
    """The directory on the host that a path inside the container is."""
    best = max(
        (target for target in box.mounts if path == target or path.startswith(target.rstrip("/") + "/")),
        key=len,
        default=None,
    )
    if best is None:
        remarks.append(f"{path} lies inside the image: copy it to the hosts before a replica is started anew")
        return posixpath.normpath(path)
    return posixpath.normpath(box.mounts[best] + path[len(best.rstrip("/")) :])


def _cached_revision(model: str, box: Box, read_text: ReadText) -> str | None:
    """The commit that the hub's cache holds, which is the one that an engine without a revision has loaded."""
    env = box.env
    caches = [
        env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"),
        f"{env['HF_HOME']}/hub" if env.get("HF_HOME") else None,
        "/root/.cache/huggingface/hub",
        "/data",
    ]
    for cache in filter(None, caches):
        for target, source in box.mounts.items():
            if cache == target or cache.startswith(target.rstrip("/") + "/"):
                inside = cache[len(target.rstrip("/")) :]
                folder = f"models--{model.replace('/', '--')}"
                text = read_text(Path(f"{source}{inside}/{folder}/refs/main"))
                if text and _HEX40.fullmatch(text.strip()):
                    return text.strip()
    return None


def _environment(box: Box, engine: str, remarks: list[str]) -> dict[str, str]:
    data = load_engines()[engine].data
    house = {**data["env"], **data["env_offline"], **data["container"]["env"]}
    read = commands.environment_names(engine)
    kept: dict[str, str] = {}
    left: list[str] = []
    for name, value in sorted(box.env.items()):
        if name in house or name in read or _NOISE.fullmatch(name):
            continue
        known = bool(_OURS.match(name)) or is_secret_name(name)
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or not (known or box.env_is_exact):
            left.append(name)
        else:
            kept[name] = value
    if left:
        remarks.append(f"variables that may be the image's own are left out: {', '.join(left)}")
    caches = [name for name in kept if name in ("HF_HOME", "HF_HUB_CACHE", "TRANSFORMERS_CACHE")]
    for name in caches:  # a path inside that container; ours has its cache elsewhere
        del kept[name]
    return kept


def _gpus(command: commands.Command, box: Box, remarks: list[str]) -> int:
    gpus = box.gpus
    if gpus.accelerator == "cpu":
        return 0
    if command.gpus:
        return command.gpus
    if gpus.ids:
        if len(gpus.ids) > 1:
            remarks.append(f"it has {len(gpus.ids)} GPUs and uses one (no tensor parallel size is given)")
        return 1
    return 1


def _resources(box: Box, engine: str) -> dict[str, object]:
    found: dict[str, object] = {}
    if box.cpus:
        found["cpus"] = int(box.cpus) if box.cpus == int(box.cpus) else box.cpus
    if box.memory_bytes:
        found["memory"] = _size(box.memory_bytes)
    default = load_engines()[engine].data["container"]["shm_mib"]
    shm = (box.shm_bytes or 0) // 2**20
    if shm > default:
        found["shm_mib"] = shm
    return found


def _size(number: int) -> str:
    for power, unit in ((30, "g"), (20, "m"), (10, "k")):
        if number % 2**power == 0:
            return f"{number >> power}{unit}"
    return f"{number}b"


def pairs(entries: object) -> dict[str, str]:
    """``NAME=value`` words, or a mapping, as a mapping of text; a name without a value is left out."""
    if isinstance(entries, Mapping):
        return {str(key): _text(value) for key, value in entries.items() if value is not None}
    found = {}
    for entry in entries if isinstance(entries, list | tuple) else ():
        name, sign, value = str(entry).partition("=")
        if sign:
            found[name] = value
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def in_bytes(text: object) -> int | None:
    """A size such as ``16g``, ``1024m`` or ``2Gi`` in bytes; None for what is none."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)i?b?\s*", str(text).lower())
    if not match:
        return None
    power = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match.group(2)]
    return int(float(match.group(1)) * 2**power)
