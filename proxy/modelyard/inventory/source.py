"""Inventory files as data with positions: which file, line and column each key stands at.

Read with PyYAML's composer, so that duplicate keys (which Ansible lets pass, the last one winning) are
found, and a value that Ansible would render or decrypt is kept apart as :class:`Templated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelyard.inventory.problems import KeyPath, Problem, dotted

_SUFFIXES = {"", ".yml", ".yaml", ".json"}
_VAULT = "$ANSIBLE_VAULT"


class Templated(str):
    """A string whose value is known only to Ansible: it holds a template or is encrypted."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int


@dataclass(slots=True)
class Variables:
    """The variables of one scope in one file. ``scope`` is ``("group", name)`` or ``("host", name)``."""

    scope: tuple[str, str]
    values: dict[str, Any]
    positions: dict[KeyPath, Position] = field(default_factory=dict)


@dataclass(slots=True)
class Sources:
    """Everything read from one inventory directory."""

    variables: list[Variables] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def find(self, path: KeyPath, host: str | None = None) -> Position | None:
        """Where a value stands: the host's own variables first, then groups, then the group ``all``.

        A key that is missing is found at what should hold it.
        """
        ranked = sorted(self.variables, key=lambda item: _rank(item.scope, host))
        for end in range(len(path), 0, -1):
            for item in ranked:
                if item.scope[0] == "host" and item.scope[1] != host:
                    continue
                if path[:end] in item.positions:
                    return item.positions[path[:end]]
        return None


def _rank(scope: tuple[str, str], host: str | None) -> int:
    if scope == ("host", host):
        return 0
    return 2 if scope == ("group", "all") else 1


def read_sources(directory: Path, shown_from: Path | None = None) -> Sources:
    """Read ``group_vars``, ``host_vars`` and the YAML inventory files of a directory.

    File names are shown relative to ``shown_from`` where they lie below it. Unreadable files, syntax errors
    and duplicate keys become problems.
    """
    sources = Sources()
    reader = _Reader(sources, shown_from)
    for kind in ("group", "host"):
        root = directory / f"{kind}_vars"
        for entry in sorted(root.iterdir()) if root.is_dir() else ():
            name = entry.name if entry.is_dir() else entry.stem
            for file in _files(entry):
                reader.variables_file(file, (kind, name))
    if directory.is_dir():
        for file in sorted(directory.iterdir()):
            if file.is_file() and file.suffix in {".yml", ".yaml"} and not file.name.startswith("."):
                reader.inventory_file(file)
    return sources


def _files(entry: Path) -> Iterator[Path]:
    if entry.is_dir():
        for child in sorted(entry.rglob("*")):
            if child.is_file() and child.suffix in _SUFFIXES and not child.name.startswith("."):
                yield child
    elif entry.suffix in _SUFFIXES and not entry.name.startswith("."):
        yield entry


class _Reader:
    def __init__(self, sources: Sources, shown_from: Path | None) -> None:
        self.sources = sources
        self.shown_from = shown_from
        self.file = ""
        self._open: set[int] = set()

    def variables_file(self, path: Path, scope: tuple[str, str]) -> None:
        node = self._compose(path)
        if node is None:
            return
        if not isinstance(node, yaml.MappingNode):
            self._problem("not-a-mapping", "must hold variables, as name: value lines.", node)
            return
        found = Variables(scope, {})
        found.values = self._mapping(node, (), found.positions)
        self.sources.variables.append(found)

    def inventory_file(self, path: Path) -> None:
        node = self._compose(path)
        if not isinstance(node, yaml.MappingNode):
            return  # another inventory plugin's file is its own affair
        for key, group in node.value:
            self._group(str(key.value), group)

    def _group(self, name: str, node: yaml.Node) -> None:
        parts = {str(key.value): value for key, value in _pairs(node)}
        own = parts.get("vars")
        if isinstance(own, yaml.MappingNode):
            self._scope(("group", name), own)
        for key, value in _pairs(parts.get("hosts")):
            if isinstance(value, yaml.MappingNode):
                self._scope(("host", str(key.value)), value)
        for key, value in _pairs(parts.get("children")):
            self._group(str(key.value), value)

    def _scope(self, scope: tuple[str, str], node: yaml.MappingNode) -> None:
        found = Variables(scope, {})
        found.values = self._mapping(node, (), found.positions)
        self.sources.variables.append(found)

    def _compose(self, path: Path) -> yaml.Node | None:
        self.file = _shown(path, self.shown_from)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._add("unreadable", f"cannot be read: {error}.", (), None)
            return None
        if text.startswith(_VAULT):
            return None
        try:
            return yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = error.problem or error.context or "not YAML"
            self._add(
                "yaml-syntax",
                f"YAML syntax: {what}.",
                (),
                Position(self.file, mark.line + 1, mark.column + 1) if mark else None,
                "Look at this line and the one above: indentation, a colon, an open quote or bracket.",
            )
        except yaml.YAMLError as error:
            self._add("yaml-syntax", f"YAML syntax: {error}.", (), None)
        return None

    def _mapping(
        self,
        node: yaml.MappingNode,
        path: KeyPath,
        positions: dict[KeyPath, Position],
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for merged in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    if isinstance(merged, yaml.MappingNode):
                        out = {**self._mapping(merged, path, positions), **out}
                continue
            key = str(key_node.value)
            here = (*path, key)
            line = key_node.start_mark.line + 1
            if key in seen:
                self._add(
                    "duplicate-key",
                    f"{dotted(here)} is given twice, in lines {seen[key]} and {line}; the second would win.",
                    here,
                    self._position(key_node),
                    "Keep one of them.",
                )
            seen[key] = line
            positions[here] = self._position(key_node)
            out[key] = self._value(value_node, here, positions)
        return out

    def _value(self, node: yaml.Node, path: KeyPath, positions: dict[KeyPath, Position]) -> Any:
        if id(node) in self._open:
            return None  # an alias that contains itself
        self._open.add(id(node))
        try:
            return self._open_value(node, path, positions)
        finally:
            self._open.discard(id(node))

    def _open_value(self, node: yaml.Node, path: KeyPath, positions: dict[KeyPath, Position]) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, positions)
        if isinstance(node, yaml.SequenceNode):
            out = []
            for at, item in enumerate(node.value):
                positions[(*path, at)] = self._position(item)
                out.append(self._value(item, (*path, at), positions))
            return out
        if node.tag.startswith("!"):
            return Templated(node.value) if "vault" in node.tag else str(node.value)
        value = _construct(node)
        if isinstance(value, str) and ("{{" in value or "{%" in value):
            return Templated(value)
        return value

    def _position(self, node: yaml.Node) -> Position:
        return Position(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _problem(self, code: str, message: str, node: yaml.Node) -> None:
        self._add(code, message, (), self._position(node))

    def _add(self, code: str, message: str, path: KeyPath, at: Position | None, hint: str = "") -> None:
        self.sources.problems.append(
            Problem(
                code,
                message,
                path,
                hint,
                file=self.file,
                line=at.line if at else None,
                column=at.column if at else None,
            )
        )


def _construct(node: yaml.Node) -> Any:
    """A scalar as YAML 1.1 reads it, as Ansible does (``yes`` is true)."""
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError:
        return str(node.value)
    finally:
        loader.dispose()


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _shown(path: Path, base: Path | None) -> str:
    if base is not None and path.is_relative_to(base):
        return str(path.relative_to(base))
    return str(path)


def is_known(value: Any) -> bool:
    """Whether a value is there and needs no rendering."""
    return value is not None and not isinstance(value, Templated)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: its shape is reported elsewhere."""
    return value if isinstance(value, Mapping) else {}
