"""YAML and JSON inputs: plain data, and the line at which something stands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from modelyard.importing.found import UnreadableError

KeyPath = tuple[str | int, ...]

_MAX_BYTES = 8 * 2**20
_MAX_DEPTH = 60


class Document:
    """A YAML (or JSON) file as plain data. Raises ``UnreadableError`` with file and line for one that is none."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._lines: dict[KeyPath, int] = {}
        if len(text) > _MAX_BYTES:
            raise UnreadableError(f"{file}: is larger than {_MAX_BYTES} bytes.")
        loader = yaml.SafeLoader
        try:
            if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=loader)):
                _refuse_bombs(text, file)
            node = yaml.compose(text, Loader=loader)
            self.data: Any = yaml.load(text, Loader=loader) if node is not None else None  # noqa: S506 - safe
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f":{mark.line + 1}" if mark else ""
            raise UnreadableError(f"{file}{where}: is no YAML: {error.problem or error.context}.") from error
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
            raise UnreadableError(f"{file}: is no YAML: {error}.") from error
        if node is not None:
            self._walk(node, (), 0)

    def mapping(self) -> Mapping[str, Any]:
        """The whole file, which has to be a mapping."""
        if not isinstance(self.data, Mapping):
            raise UnreadableError(f"{self.file}:1: must hold a mapping at its top.")
        return self.data

    def at(self, *path: str | int) -> str:
        """``file:line`` of what a path leads to, or of the nearest thing that holds it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self._lines:
                return f"{self.file}:{self._lines[path[:end]]}"
        return self.file

    def _walk(self, node: yaml.Node, path: KeyPath, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise UnreadableError(f"{self.file}: is nested deeper than {_MAX_DEPTH} levels.")
        if path in self._lines:
            return
        if path:
            self._lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                inner = (*path, str(key.value))
                self._walk(value, inner, depth + 1)
                self._lines[inner] = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self._walk(item, (*path, number), depth + 1)


def _refuse_bombs(text: str, file: str) -> None:
    """Anchors are common in these files; ones that are used hundreds of times are an attack."""
    if len(re.findall(r"(?m)(?:^|[\s\[,:-])\*[A-Za-z0-9_-]+", text)) > 200:
        raise UnreadableError(f"{file}: uses more than 200 YAML aliases.")
