"""What tells a model's size of the weights on this host: ``config.json``, and how large the files are. Reads no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_MOST_CONFIG = 256 * 2**10
_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.")


def sizes(paths: list[str]) -> dict[str, dict[str, Any]]:
    """For each of these directories that holds a model: its ``config``, and ``files_bytes`` of its weights.

    ``files_bytes`` is None where nobody can tell; a directory without a readable config is left out.
    """
    found = {}
    for path in paths:
        directory = Path(path).expanduser()
        config = _config(directory / "config.json")
        if config is not None:
            found[path] = {"config": config, "files_bytes": _files_bytes(directory)}
    return found


def _files_bytes(directory: Path) -> int | None:
    """Bytes of the weight files; None where there are none, or where some of the numbered ones are missing."""
    for pattern in _PATTERNS:
        try:
            files = [file for file in directory.glob(pattern) if file.is_file()]
            total = sum(file.stat().st_size for file in files)
        except OSError:
            return None
        if files:
            shards = [match for file in files if (match := _SHARD.search(file.name))]
            whole = not shards or len(shards) >= int(shards[0].group(2))
            return total if whole else None
    return None


def _config(file: Path) -> dict[str, Any] | None:
    try:
        if file.stat().st_size > _MOST_CONFIG:
            return None
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
