"""From text to plain data: YAML or JSON, with positions, every duplicate key and no surprises.

YAML dates stay text, keys must be text, numbers must be finite, and anchors cannot blow a small file up.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from .problems import Path, Problem, short

_MAX_NODES = 1_000_000
_MAX_DEPTH = 40


@dataclass(slots=True)
class Parsed:
    """Plain data, the line of each path where known, and what is wrong with the text itself."""

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def parse(text: str, file: str) -> Parsed:
    """Read ``text`` as JSON where it begins like JSON and is, as YAML otherwise. Never raises for bad
    text.
    """
    if text.lstrip()[:1] == "{":
        try:
            return _parse_json(text, file)
        except json.JSONDecodeError as exc:
            # `{a: 1}` is YAML, `{"a": 1,}` broken JSON: only what YAML cannot read either is reported as JSON
            parsed = _parse_yaml(text, file)
            if parsed.problems and parsed.data is None:
                return Parsed(
                    problems=[Problem(file, (), f"is not valid JSON: {exc.msg}", exc.lineno, exc.colno)]
                )
            return parsed
        except RecursionError:
            return Parsed(problems=[Problem(file, (), f"is nested deeper than {_MAX_DEPTH} levels")])
        except ValueError:
            return Parsed(problems=[Problem(file, (), "holds a number with too many digits")])
    return _parse_yaml(text, file)


def _parse_json(text: str, file: str) -> Parsed:
    parsed = Parsed()

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                parsed.problems.append(
                    Problem(file, (), f"key {key!r} stands twice in one mapping; keep one of them")
                )
            result[key] = value
        return result

    def constant(name: str) -> float:
        parsed.problems.append(Problem(file, (), f"{name} is no number that JSON or a registry knows"))
        return 1.0

    parsed.data = json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    return parsed


def _parse_yaml(text: str, file: str) -> Parsed:
    parsed = Parsed()
    loader_class = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        loader = loader_class(text)
    except yaml.reader.ReaderError as exc:
        parsed.problems.append(Problem(file, (), f"is not text: {exc.reason} at character {exc.position}"))
        return parsed
    try:
        _check_size(text, loader_class)
        node = loader.get_single_node()
        if node is not None:
            parsed.data = _Builder(file, loader, parsed).build(node, (), 0)
    except yaml.reader.ReaderError as exc:
        parsed.problems.append(Problem(file, (), f"is not text: {exc.reason} at character {exc.position}"))
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        parsed.data = None
        parsed.problems.append(
            Problem(file, (), f"is not valid YAML: {exc.problem or exc.context}", line, column)
        )
    except RecursionError:
        parsed.data = None
        parsed.problems.append(Problem(file, (), f"is nested deeper than {_MAX_DEPTH} levels"))
    finally:
        loader.dispose()
    return parsed


def _check_size(text: str, loader_class: Any) -> None:
    """Raise for a text nested too deeply or with too many values. Events come one by one; the composer in C
    recurses until it crashes, and lets no other thread run until it is done.
    """
    depth = 0
    event: Any
    for number, event in enumerate(yaml.parse(text, Loader=loader_class)):
        if number > _MAX_NODES:
            raise yaml.MarkedYAMLError(
                problem=f"more than {_MAX_NODES} values", problem_mark=event.start_mark
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                mark: Any = event.start_mark  # the C parser's own kind of mark has the same attributes
                raise yaml.MarkedYAMLError(problem=f"more than {_MAX_DEPTH} levels", problem_mark=mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Builder:
    """Turns a YAML node tree into plain data while noting lines and faults."""

    def __init__(self, file: str, loader: Any, parsed: Parsed) -> None:
        self._file = file
        self._loader = loader
        self._parsed = parsed
        self._left = _MAX_NODES

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self._left -= 1
        # an alias may lead round in a circle, or multiply
        if self._left < 0 or depth > _MAX_DEPTH:
            limit = f"{_MAX_DEPTH} levels" if depth > _MAX_DEPTH else f"{_MAX_NODES} values"
            raise yaml.MarkedYAMLError(problem=f"more than {limit}", problem_mark=node.start_mark)
        self._parsed.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, path, depth))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, number), depth + 1) for number, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _pairs(self, node: yaml.MappingNode, path: Path, depth: int) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(path, "a key must be text", key_node)
                continue
            key = str(key_node.value)
            if key_node.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                self._problem(path, f"key {key} is read as a {_kind(key_node)}; put it in quotes", key_node)
            if key in seen:
                self._problem(
                    path, f"key {key!r} stands twice (first in line {seen[key]}); keep one", key_node
                )
                continue
            seen[key] = line
            yield key, self.build(value_node, (*path, key), depth + 1)
            self._parsed.lines[(*path, key)] = line

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            value = self._loader.construct_object(node)
        except (ValueError, yaml.constructor.ConstructorError):
            self._problem(
                path, f"value {short(node.value)} cannot be read as {node.tag.rpartition(':')[2]}", node
            )
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._problem(path, f"must be a finite number, is {node.value[:60]}", node)
            return 1.0
        if isinstance(value, bytes):
            self._problem(path, "must be text, is binary", node)
            return ""
        return value

    def _problem(self, path: Path, message: str, node: yaml.Node) -> None:
        mark = node.start_mark
        self._parsed.problems.append(Problem(self._file, path, message, mark.line + 1, mark.column + 1))


def _kind(node: yaml.Node) -> str:
    kind = str(node.tag).rpartition(":")[2]
    return {
        "int": "number",
        "float": "number",
        "bool": "truth value",
        "null": "null",
        "timestamp": "date",
    }.get(kind, kind)
