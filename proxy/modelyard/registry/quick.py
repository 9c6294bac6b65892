"""Whether data is valid, many times faster than why it is not.

A JSON Schema is made into plain functions once. They may say no to what is valid (a whole number written as 1.0), and
never yes to what is not: after a no, whoever finds the words decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Test = Callable[[Any], bool]

_TYPES: Mapping[str, frozenset[type]] = {
    "object": frozenset({dict}),
    "array": frozenset({list}),
    "string": frozenset({str}),
    "integer": frozenset({int}),
    "number": frozenset({int, float}),
    "boolean": frozenset({bool}),
    "null": frozenset({type(None)}),
}
_SAID = frozenset({"$schema", "$id", "$defs", "title", "description", "default"})
_NUMBERS = frozenset({int, float})


def quick_test(schema: Mapping[str, Any]) -> Test:
    """A function that is true only for data that is valid by ``schema``; references go to its ``$defs``.

    Raises ``ValueError`` for a keyword that it does not know.
    """
    made: dict[str, Test] = {}

    def of(part: Mapping[str, Any] | bool) -> Test:
        if isinstance(part, bool):
            return lambda _: part
        tests = [
            reference(part[key]) if key == "$ref" else rule(key)(part, of)
            for key in part
            if key not in _SAID and key not in _TOGETHER
        ]
        if part.keys() & _TOGETHER:
            tests.append(_mapping(part, of))
        if len(tests) == 1:
            return tests[0]
        return lambda value: all(test(value) for test in tests)

    def rule(key: str) -> Callable[..., Test]:
        if key not in _RULES:
            raise ValueError(f"the keyword {key!r} is not known here")
        return _RULES[key]

    def reference(name: str) -> Test:
        key = name.removeprefix("#/$defs/")
        if key not in made:
            made[key] = of(schema["$defs"][key])
        return made[key]

    return of(schema)


def _type(part: Mapping[str, Any], _: Callable[..., Test]) -> Test:
    named = part["type"]
    kinds = frozenset().union(*(_TYPES[name] for name in ([named] if isinstance(named, str) else named)))
    return lambda value: type(value) in kinds


def _const(part: Mapping[str, Any], _: Callable[..., Test]) -> Test:
    wanted = part["const"]
    return lambda value: type(value) is type(wanted) and value == wanted


def _enum(part: Mapping[str, Any], _: Callable[..., Test]) -> Test:
    wanted = frozenset(part["enum"])
    return lambda value: type(value) is str and value in wanted


def _bound(key: str, kinds: frozenset[type], holds: Callable[[Any, Any], bool]) -> Callable[..., Test]:
    def rule(part: Mapping[str, Any], _: Callable[..., Test]) -> Test:
        limit = part[key]
        return lambda value: type(value) not in kinds or holds(value, limit)

    return rule


def _pattern(part: Mapping[str, Any], _: Callable[..., Test]) -> Test:
    matches = re.compile(part["pattern"]).fullmatch
    return lambda value: type(value) is not str or matches(value) is not None


def _unique(part: Mapping[str, Any], _: Callable[..., Test]) -> Test:
    def test(value: Any) -> bool:
        if type(value) is not list or not part["uniqueItems"]:
            return True
        return all(type(item) is str for item in value) and len(set(value)) == len(value)

    return test


def _items(part: Mapping[str, Any], of: Callable[..., Test]) -> Test:
    item = of(part["items"])
    return lambda value: type(value) is not list or all(map(item, value))


def _names(part: Mapping[str, Any], of: Callable[..., Test]) -> Test:
    name = of(part["propertyNames"])
    return lambda value: type(value) is not dict or all(map(name, value))


def _mapping(part: Mapping[str, Any], of: Callable[..., Test]) -> Test:
    """``properties``, ``required`` and ``additionalProperties``, which hang together."""
    tests = {name: of(each) for name, each in part.get("properties", {}).items()}
    required = frozenset(part.get("required", ()))
    rest = of(part.get("additionalProperties", True))

    def test(value: Any) -> bool:
        if type(value) is not dict:
            return True
        if not required <= value.keys():
            return False
        return all(tests.get(name, rest)(item) for name, item in value.items())

    return test


_TOGETHER = frozenset({"properties", "required", "additionalProperties"})
_RULES: Mapping[str, Callable[..., Test]] = {
    "type": _type,
    "const": _const,
    "enum": _enum,
    "minimum": _bound("minimum", _NUMBERS, lambda value, limit: value >= limit),
    "maximum": _bound("maximum", _NUMBERS, lambda value, limit: value <= limit),
    "exclusiveMinimum": _bound("exclusiveMinimum", _NUMBERS, lambda value, limit: value > limit),
    "minLength": _bound("minLength", frozenset({str}), lambda value, limit: len(value) >= limit),
    "maxLength": _bound("maxLength", frozenset({str}), lambda value, limit: len(value) <= limit),
    "pattern": _pattern,
    "uniqueItems": _unique,
    "items": _items,
    "propertyNames": _names,
}
