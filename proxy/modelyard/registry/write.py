"""Write a registry so that a reader sees the old one or the new one, and a power cut loses neither."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .load import load_text, read_text
from .text import parse


@dataclass(frozen=True, slots=True)
class Written:
    """Outcome of a write: whether the file changed, and the generation it now has."""

    changed: bool
    generation: int


def write_registry(path: Path, models: Mapping[str, Any], *, mode: int = 0o644) -> Written:
    """Put ``models`` into the registry at ``path``; the generation grows by one if and only if they differ.

    Raises ``RegistryRefusedError`` when ``models`` is invalid or the file present cannot be read: a file
    that we do not understand is not overwritten, because its generation would be lost. Two writers at once
    are not arbitrated.
    """
    generation = 0
    if path.exists():
        text = read_text(path)
        generation = load_text(text, str(path)).generation
        if parse(text, str(path)).data["models"] == dict(models):
            return Written(changed=False, generation=generation)
    document = {"version": 1, "generation": generation + 1, "models": dict(models)}
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    load_text(text, str(path))
    write_text(path, text, mode=mode)
    return Written(changed=True, generation=generation + 1)


def write_text(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text``: temporary file beside it, fsync, rename, fsync of the directory."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
