"""The files of a model on this machine: ``config.json``, the index of its weights, and how large they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from modelyard.errors import SizingError
from modelyard.sizing.model import Model, read_model

CONFIG = "config.json"
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_MOST_CONFIG = 8 * 2**20
_MOST_INDEX = 256 * 2**20
_SHARD = re.compile(r"-(\d+)-of-(\d+)\.")
_PATTERNS = ("model*.safetensors", "*.safetensors", "pytorch_model*.bin")


def model_at(path: Path) -> Model:
    """The model in a directory that holds ``config.json``, or the one whose ``config.json`` this is.

    Weights are taken from an index, else from the files beside, else counted. Raises SizingError.
    """
    file = path / CONFIG if path.is_dir() else path
    directory = file.parent
    if not file.is_file():
        raise SizingError(f"There is no {CONFIG} in {path}." if path.is_dir() else f"{path} is not there.")
    config = read_json(file, _MOST_CONFIG)
    index_file = next((directory / name for name in _INDICES if (directory / name).is_file()), None)
    index = read_json(index_file, _MOST_INDEX) if index_file is not None else None
    return read_model(config, index=index, files_bytes=weight_files_bytes(directory))


def weight_files_bytes(directory: Path) -> int | None:
    """Bytes of the weight files in a directory, None where there are none.

    Safetensors go before other files. SizingError when some of the numbered files are missing.
    """
    for pattern in _PATTERNS:
        try:
            files = sorted(file for file in directory.glob(pattern) if file.is_file())
            sizes = [file.stat().st_size for file in files]
        except OSError as exc:
            raise SizingError(f"{directory} cannot be read: {exc.strerror or exc}.") from exc
        if files:
            _check_whole(directory, files)
            return sum(sizes)
    return None


def _check_whole(directory: Path, files: list[Path]) -> None:
    shards = [match for file in files if (match := _SHARD.search(file.name))]
    if shards and len(shards) < int(shards[0].group(2)):
        raise SizingError(
            f"{directory} holds {len(shards)} of {int(shards[0].group(2))} weight files: the download is not complete."
        )


def read_json(file: Path, most: int) -> Any:
    """A JSON file of at most ``most`` bytes. Raises SizingError in one sentence for one that cannot be read."""
    try:
        if file.stat().st_size > most:
            raise SizingError(f"{file} is larger than {most // 2**20} MiB, too large for what it should be.")
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SizingError(f"{file} cannot be read: {exc.strerror or exc}.") from exc
    except RecursionError as exc:
        raise SizingError(f"{file} is nested too deeply.") from exc
    except ValueError as exc:  # not JSON, not UTF-8, or a number with thousands of digits
        raise SizingError(f"{file} is no JSON: {exc}.") from exc
