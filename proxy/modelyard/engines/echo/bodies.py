"""Reading request bodies: one JSON object, and fields of the right type. A null counts as absent.

Both dialects use it; each turns BadBody into its own error object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from aiohttp import web


class BadBody(Exception):  # noqa: N818 - it names what was bad, and reads so where it is caught
    """A body, or one field of it, that cannot be used. ``field`` is None for the body as a whole."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def read_object(request: web.Request) -> dict[str, Any]:
    """The request's body as a JSON object; BadBody when it is anything else."""
    raw = await request.read()
    try:
        data = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        raise BadBody(f"The body is not valid JSON: {exc}") from exc
    if not isinstance(data, dict):
        raise BadBody(f"The body must be a JSON object, not {kind(data)}.")
    return data


def kind(value: object) -> str:
    """The JSON name of a value's type."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an integer"}
    return "null" if value is None else names.get(type(value), "a number")


class Fields:
    """Typed access to the fields of one object; ``where`` prefixes their names in errors."""

    def __init__(self, data: Mapping[str, Any], where: str = "") -> None:
        self._data = data
        self._where = where

    def bad(self, name: str, message: str) -> BadBody:
        """The error for one field."""
        path = self._where + name
        return BadBody(f"`{path}` {message}", path)

    def raw(self, name: str) -> Any:
        """Whatever stands there, None when absent."""
        return self._data.get(name)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self._data.get(name)
        if value is not None and not isinstance(value, str):
            raise self.bad(name, f"must be a string, not {kind(value)}")
        return value

    def flag(self, name: str) -> bool:
        """A boolean; absent is false."""
        value = self._data.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.bad(name, f"must be true or false, not {kind(value)}")
        return bool(value)

    def integer(self, name: str, low: int, high: int | None = None) -> int | None:
        """An integer in low..high, both included."""
        value = self._data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(name, f"must be an integer, not {kind(value)}")
        if value < low:
            raise self.bad(name, f"must be at least {low}, got {value}")
        if high is not None and value > high:
            raise self.bad(name, f"must be at most {high}, got {value}")
        return value

    def number(self, name: str) -> float | None:
        """Any number."""
        value = self._data.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(name, f"must be a number, not {kind(value)}")
        return float(value)

    def child(self, name: str) -> Fields:
        """A nested object; absent is empty."""
        value = self._data.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.bad(name, f"must be an object, not {kind(value)}")
        return Fields(value, f"{self._where}{name}.")

    def strings(self, name: str, most: int) -> tuple[str, ...]:
        """A list of at most ``most`` non-empty strings; one string alone is a list of one."""
        value = self._data.get(name)
        if value is None:
            return ()
        listed: Sequence[object] = [value] if isinstance(value, str) else value
        if not isinstance(listed, list):
            raise self.bad(name, f"must be a string or a list of strings, not {kind(value)}")
        if len(listed) > most:
            raise self.bad(name, f"may hold at most {most} strings, got {len(listed)}")
        if not all(isinstance(item, str) and item for item in listed):
            raise self.bad(name, "must hold non-empty strings only")
        return tuple(str(item) for item in listed)
