"""Numbers and switches out of a ``config.json``, each checked where it is read.

Every reader takes several spellings of a key and uses the first that is there; ``null`` is as good as absent.
All of them raise ``SizingError`` for a value that cannot be one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from modelyard.errors import SizingError

Config = Mapping[str, Any]

MOST = 10**9  # far above every real dimension; what is larger is a mistake or an attack
MOST_LAYERS = 10_000
_SHOWN = 40


def found(config: Config, *names: str) -> tuple[str, Any] | None:
    """The first of the names that has a value, and the value."""
    return next(((name, config[name]) for name in names if config.get(name) is not None), None)


def optional(config: Config, *names: str, least: int = 1, most: int = MOST) -> int | None:
    """A whole number from ``least`` to ``most``, or None where no name has a value."""
    hit = found(config, *names)
    return None if hit is None else _whole(*hit, least=least, most=most)


def required(config: Config, *names: str, least: int = 1, most: int = MOST) -> int:
    """A whole number that has to be there."""
    number = optional(config, *names, least=least, most=most)
    if number is None:
        raise SizingError(f"config.json has no {' or '.join(names)}, which the estimate needs.")
    return number


def switch(config: Config, name: str, default: bool) -> bool:
    """True or false."""
    value = config.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise SizingError(f"{name} in config.json must be true or false, not {shown(value)}.")
    return value


def text(config: Config, *names: str) -> str | None:
    """A text, or None where no name has a value."""
    hit = found(config, *names)
    if hit is None:
        return None
    if not isinstance(hit[1], str):
        raise SizingError(f"{hit[0]} in config.json must be text, not {shown(hit[1])}.")
    return hit[1]


def part(config: Config, name: str) -> Config | None:
    """A mapping inside the config, or None where there is none."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise SizingError(f"{name} in config.json must be a mapping, not {shown(value)}.")
    return value


def texts(config: Config, name: str) -> tuple[str, ...] | None:
    """A list of texts, or None where there is none."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise SizingError(f"{name} in config.json must be a list of texts, not {shown(value)}.")
    return tuple(value)


def shown(value: Any) -> str:
    """A value as a message may show it: short, whatever it is."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and abs(value) > MOST**2:
        return "a number with too many digits"
    try:
        words = json.dumps(value)
    except (TypeError, ValueError):
        words = repr(value)
    return words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."


def _whole(name: str, value: Any, *, least: int, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise SizingError(f"{name} in config.json must be a whole number, not {shown(value)}.")
    if not least <= value <= most:
        raise SizingError(f"{name} in config.json must be from {least} to {most}, not {shown(value)}.")
    return value
