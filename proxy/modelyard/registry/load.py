"""Read, check and build a registry; all faults are told at once."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelyard.catalog.loader import load_engines
from modelyard.errors import RegistryRefusedError

from .check import check
from .model import Endpoint, Limits, Mirror, Model, Queue, Registry, Timeouts
from .problems import Problem, with_lines
from .text import parse

MAX_FILE_BYTES = 64 * 2**20


def find_problems(text: str, file: str) -> list[Problem]:
    """Everything wrong with a registry's text; empty when it is valid."""
    return read(text, file)[1]


def load_text(text: str, file: str) -> Registry:
    """Build the registry in ``text``; ``file`` is the name used in messages.

    Raises ``RegistryRefusedError`` whose ``problems`` name file, model and field of every fault.
    """
    data, problems = read(text, file)
    if problems:
        raise refusal(file, problems)
    return build(data, data["models"].items())


def refusal(file: str, problems: Sequence[Problem]) -> RegistryRefusedError:
    """The error that tells all ``problems`` of a file."""
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return RegistryRefusedError(f"{file} is no valid registry: {count}", [str(item) for item in problems])


def load_file(path: Path) -> Registry:
    """Read and build the registry at ``path``. Raises ``RegistryRefusedError`` also when it cannot be
    read.
    """
    return load_text(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The file's text. Raises ``RegistryRefusedError`` for whatever cannot be read as UTF-8."""
    try:
        raw = _read_bytes(path)
    except OSError as exc:
        said = exc.strerror or str(exc)
        raise RegistryRefusedError(
            f"{path}: cannot be read: {said}", [f"{path}: cannot be read: {said}"]
        ) from exc
    if len(raw) > MAX_FILE_BYTES:
        said = f"{path}: is larger than {MAX_FILE_BYTES} bytes"
        raise RegistryRefusedError(said, [said])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        said = f"{path}: is not UTF-8 text (byte {exc.start})"
        raise RegistryRefusedError(said, [said]) from exc


def _read_bytes(path: Path) -> bytes:
    """One byte more than ``MAX_FILE_BYTES`` at most, so that the caller can tell. Raises ``OSError``, also
    for a pipe or device, which could keep its reader for ever.
    """
    # without waiting: opening a pipe for reading waits for its writer
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return file.read(MAX_FILE_BYTES + 1)


def read(text: str, file: str) -> tuple[Any, list[Problem]]:
    """Plain data and everything wrong with it; only data without problems may be built."""
    parsed = parse(text, file)
    if parsed.problems and parsed.data is None:
        return None, parsed.problems
    found = check(parsed.data, file, load_engines().keys())
    return parsed.data, parsed.problems + with_lines(found, parsed.lines)


def build(data: Mapping[str, Any], entries: Iterable[tuple[str, dict[str, Any]]]) -> Registry:
    """Frozen objects from data that ``check`` found nothing wrong with; ``entries`` are its models."""
    models = {name: _model(name, entry) for name, entry in entries}
    aliases = {alias: model.id for model in models.values() for alias in model.aliases}
    return Registry(
        generation=int(data.get("generation", 0)),
        models=MappingProxyType(models),
        aliases=MappingProxyType(aliases),
    )


def _model(name: str, entry: dict[str, Any]) -> Model:
    timeouts = {key: float(value) for key, value in entry.get("timeouts", {}).items()}
    return Model(
        id=name,
        name=entry.get("name", name),
        hf_name=entry.get("hf_name"),
        task=entry.get("task", "generate"),
        aliases=tuple(entry.get("aliases", ())),
        fallbacks=tuple(entry.get("fallbacks", ())),
        policy=entry.get("policy", "least_loaded"),
        timeouts=Timeouts(**timeouts),
        limits=Limits(**entry.get("limits", {})),
        queue=Queue(**entry["queue"]) if entry.get("queue") is not None else None,
        canary_percent=float(entry.get("canary_percent", 0)),
        mirror=Mirror(**entry["mirror"]) if entry.get("mirror") is not None else None,
        clients=tuple(entry.get("clients", ())),
        endpoints=tuple(_endpoint(name, item) for item in entry["endpoints"]),
    )


def _endpoint(model: str, entry: dict[str, Any]) -> Endpoint:
    expires = entry.get("expires_at")
    return Endpoint(
        id=entry["id"],
        url=entry["url"].rstrip("/"),
        engine=entry["engine"],
        served_name=entry.get("served_name", model),
        weight=float(entry.get("weight", 1)),
        state=entry.get("state", "active"),
        host=entry.get("host"),
        expires_at=datetime.fromisoformat(expires) if expires else None,
        tier=int(entry.get("tier", 0)),
        track=entry.get("track", "stable"),
        max_in_flight=entry.get("max_in_flight"),
    )
