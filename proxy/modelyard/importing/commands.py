"""Command lines of engines: what they start, and with which arguments."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.catalog.loader import load_engines


@dataclass(slots=True)
class Command:
    """An engine's command line, taken apart. ``args`` are those of the inventory; ``port`` where it listens."""

    engine: str
    model: str | None = None
    revision: str | None = None
    served: tuple[str, ...] = ()
    args: dict[str, Any] = field(default_factory=dict)
    gpus: int | None = None
    port: int | None = None
    key: bool = False
    task: str = "generate"
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How an engine spells what the inventory says elsewhere. ``port`` is its default inside its image."""

    model: str
    gpus: str
    port: int
    positional: bool
    short: Mapping[str, str]
    served: str | None
    env: Mapping[str, str]


_DIALECTS = {
    "vllm": _Dialect(
        model="model",
        gpus="tensor_parallel_size",
        port=8000,
        positional=True,
        short={"-tp": "tensor_parallel_size", "-pp": "pipeline_parallel_size", "-dp": "data_parallel_size",
               "-q": "quantization", "-cc": "compilation_config"},
        served="served_model_name",
        env={},
    ),
    "tgi": _Dialect(
        model="model_id",
        gpus="num_shard",
        port=80,
        positional=False,
        short={"-p": "port"},
        served=None,
        env={"MODEL_ID": "model_id", "REVISION": "revision", "NUM_SHARD": "num_shard", "PORT": "port",
             "QUANTIZE": "quantize", "MAX_INPUT_TOKENS": "max_input_tokens",
             "MAX_TOTAL_TOKENS": "max_total_tokens", "DTYPE": "dtype",
             "MAX_BATCH_PREFILL_TOKENS": "max_batch_prefill_tokens"},
    ),
}  # fmt: skip

# Engines that are recognised and that the catalog does not have: part of a command or of an image's name.
UNSUPPORTED = {
    "sglang": "SGLang",
    "llama-server": "llama.cpp",
    "llama.cpp": "llama.cpp",
    "ollama": "Ollama",
    "tritonserver": "Triton",
    "lmdeploy": "LMDeploy",
    "text-embeddings-inference": "Text Embeddings Inference",
    "text-embeddings-router": "Text Embeddings Inference",
    "aphrodite": "Aphrodite",
    "koboldcpp": "KoboldCpp",
    "tabbyapi": "TabbyAPI",
    "mlx_lm": "MLX",
}
_TASKS = {
    "embed": "embed", "embedding": "embed", "score": "rerank", "classify": "classify", "reward": "classify",
    "transcription": "transcribe",
}  # fmt: skip
_HEX40 = re.compile(r"[0-9a-f]{40}")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def engine_of(words: Sequence[str], image: str | None) -> str | None:
    """The catalog's engine that a command or, without one that says it, an image starts; None for neither."""
    line = " ".join(words)
    name = (image or "").partition("@")[0].lower()
    if re.search(r"\bsglang\b", line) or "sglang" in name:
        return None
    if re.search(r"(^|[\s/])vllm serve(\s|$)|vllm\.entrypoints\.(openai\.)?api_server", line):
        return "vllm"
    if re.search(r"(^|[\s/])(text-generation-launcher|tgi-entrypoint\.sh)(\s|$)", line):
        return "tgi"
    if "text-generation-inference" in name:
        return "tgi"
    if re.search(r"(^|/)vllm[a-z0-9-]*(:|$)", name) and not re.search(r"router|lmcache-server", name + line):
        return "vllm"
    return None


def unsupported(words: Sequence[str], image: str | None) -> str | None:
    """The name of an engine that is recognised but that the catalog does not have."""
    text = f"{image or ''} {' '.join(words)}".lower()
    return next((title for sign, title in UNSUPPORTED.items() if sign in text), None)


def unwrapped(words: Sequence[str]) -> list[str]:
    """The words of a command that stands within a shell (``sh -c "exec vllm serve ..."``), else the same words.

    Raises ``ValueError`` for quotes that do not end.
    """
    found = list(words)
    if (
        len(found) >= 3
        and re.fullmatch(r"(.*/)?(ba|da|z)?sh", found[0])
        and re.fullmatch(r"-[lec]*c", found[1])
    ):
        lines = [line for line in re.split(r"&&|;|\n", found[2].replace("\\\n", " ")) if line.strip()]
        found = shlex.split(lines[-1]) if lines else []
    while found and (found[0] in ("exec", "env") or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*=.*", found[0])):
        found = found[1:]
    return found


def flags_of(engine: str, words: Sequence[str]) -> list[str]:
    """What follows the program in a command line: the model and the flags."""
    marks = {"vllm": ("serve", "api_server"), "tgi": ("text-generation-launcher", "tgi-entrypoint.sh")}[
        engine
    ]
    for at, word in enumerate(words):
        if word.rpartition("/")[2] in marks or word.endswith(".api_server"):
            return list(words[at + 1 :])
    return list(words)


def parse(engine: str, flags: Sequence[str], env: Mapping[str, str]) -> Command:
    """Take a command line apart. ``env`` counts where the engine reads the same from there (TGI)."""
    dialect = _DIALECTS[engine]
    command = Command(engine)
    given: dict[str, Any] = {}
    for variable, name in dialect.env.items():
        if env.get(variable):
            given[name] = _typed(env[variable])
    positional = _collect(dialect, flags, given, command.remarks)
    if dialect.positional and positional and dialect.model not in given:
        given[dialect.model] = positional.pop(0)
    for word in positional:
        command.remarks.append(f"{word!r} on the command line belongs to no flag and is left out")
    _take_known(dialect, given, command)
    rules = load_engines()[engine].data["arguments"]
    for name, value in given.items():
        if name.replace("-", "_") in rules["reserved"]:
            command.remarks.append(f"--{name.replace('_', '-')} is set by Modelyard itself and is left out")
        elif value is False and not rules["negation"]:
            command.remarks.append(f"--no-{name} is no flag of {engine} and is left out")
        else:
            command.args[name] = value
    return command


def environment_names(engine: str) -> frozenset[str]:
    """Variables that ``parse`` has read as arguments."""
    return frozenset(_DIALECTS[engine].env)


def _collect(dialect: _Dialect, flags: Sequence[str], given: dict[str, Any], remarks: list[str]) -> list[str]:
    """Put flags into ``given``; return the words before the first flag."""
    positional: list[str] = []
    name: str | None = None
    values: dict[str, list[str]] = {}
    for word in flags:
        flag = _flag(dialect, word)
        if flag is None:
            (positional if name is None else values[name]).append(word)
            continue
        name, value = flag
        if name in values:
            remarks.append(f"--{name.replace('_', '-')} is given more than once; the last one counts")
        values[name] = [value] if value is not None else []
    for key, words in values.items():
        if not _NAME.fullmatch(key):
            remarks.append(f"--{key} cannot be written as an argument in the inventory and is left out")
        elif not words and key.startswith("no_"):
            given[key[3:]] = False
        elif not words:
            given[key] = True
        else:
            given[key] = _typed(words[0]) if len(words) == 1 else [str(item) for item in words]
    return positional


def _flag(dialect: _Dialect, word: str) -> tuple[str, str | None] | None:
    """Name and value of a flag; None for a word that is a value."""
    head, sign, value = word.partition("=")
    if head in dialect.short:
        return dialect.short[head], value if sign else None
    if head.startswith("--") and len(head) > 2:
        return head[2:].replace("-", "_"), value if sign else None
    if re.fullmatch(r"-O[0-9]?", head):
        return "optimization_level", head[2:] or value or None
    if re.fullmatch(r"-[A-Za-z]+", head):
        return head.lstrip("-"), value if sign else None
    return None


def _typed(text: str) -> Any:
    """A value as the inventory writes it, if it becomes the same word again; JSON mappings as such."""
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        return value if isinstance(value, dict) else text
    if _NUMBER.fullmatch(text):
        number: int | float = float(text) if "." in text else int(text)
        return number if str(number) == text else text
    return text


def _take_known(dialect: _Dialect, given: dict[str, Any], command: Command) -> None:
    """Move what the inventory says elsewhere out of ``given``."""
    model = given.pop(dialect.model, None)
    command.model = str(model) if model not in (None, True, False) else None
    revision = given.pop("revision", None)
    if isinstance(revision, str) and _HEX40.fullmatch(revision):
        command.revision = revision
    elif revision is not None:
        command.remarks.append(f"the revision {revision} is no commit of 40 hexadecimal digits")
    if dialect.served and dialect.served in given:
        names = given.pop(dialect.served)
        words = [str(name) for name in (names if isinstance(names, list) else [names])]
        command.served = tuple(name for name in words if 0 < len(name) <= 500)
    gpus, port = given.pop(dialect.gpus, None), given.pop("port", None)
    command.gpus = gpus if isinstance(gpus, int) and not isinstance(gpus, bool) else None
    command.port = port if isinstance(port, int) and not isinstance(port, bool) else dialect.port
    for stages in ("pipeline_parallel_size", "data_parallel_size"):
        many = given.get(stages)
        if isinstance(many, int) and many > 1:
            command.gpus = (command.gpus or 1) * many
    for name in ("host", "hostname", "shutdown_timeout", "graceful_termination_timeout", "usage_stats",
                 "json_output", "payload_limit"):  # fmt: skip
        given.pop(name, None)  # Modelyard's own, set for every engine alike
    command.key = given.pop("api_key", None) is not None
    if command.key:
        command.remarks.append(
            "it wants a key (--api-key) of its clients, and the proxies have none to give: they will find it "
            "unauthorised. The key is not taken over; without it the engine listens on the private address alone"
        )
    asked = str(given.get("task", ""))
    if str(given.get("runner")) == "pooling" or asked in _TASKS:
        command.task = _TASKS.get(asked) or _TASKS.get(str(given.get("convert")), "embed")
