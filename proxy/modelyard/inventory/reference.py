"""The reference tables of docs/inventory.md, made from the schemas.

``python -m modelyard.inventory.reference docs/inventory.md`` renews what stands between the file's markers.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modelyard.inventory.schema import fleet_schema, models_schema

_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true / false",
    "array": "list",
    "object": "mapping",
}


def rows(properties: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every key path of a schema with its rule, nested keys after the one that holds them."""
    for name, rule in properties.items():
        yield f"{prefix}{name}", rule
        yield from rows(rule.get("properties", {}), f"{prefix}{name}.")


def models_table() -> str:
    """All keys of a model as a Markdown table."""
    item = models_schema()["items"]
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for path, rule in rows(item["properties"]):
        default = "required" if path in item["required"] else _default(rule)
        lines.append(f"| `{path}` | {_kind(rule)} | {default} | {_cell(rule['description'])} |")
    return "\n".join(lines)


def fleet_table() -> str:
    """All fleet settings as a Markdown table."""
    lines = ["| setting | type | default | scope | meaning |", "|---|---|---|---|---|"]
    for name, rule in rows(fleet_schema()["properties"]):
        lines.append(
            f"| `{name}` | {_kind(rule)} | {_default(rule)} | {rule['x-scope']} | {_cell(rule['description'])} |"
        )
    return "\n".join(lines)


def renewed(text: str) -> str:
    """The document with its tables made anew. ``ValueError`` when a marker is missing."""
    for name, table in (("models", models_table()), ("fleet", fleet_table())):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"the document has no {begin} ... {end}")
        replacement = f"{begin}\n\n{table}\n\n{end}"
        text = pattern.sub(replacement.replace("\\", r"\\"), text)
    return text


def _kind(rule: Mapping[str, Any]) -> str:
    if "enum" in rule:
        return " / ".join(f"`{value}`" for value in rule["enum"])
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    return " or ".join(_KINDS[kind] for kind in kinds)


def _default(rule: Mapping[str, Any]) -> str:
    if "default" in rule:
        value = rule["default"]
        return f"`{value if isinstance(value, str) else json.dumps(value)}`"
    return _cell(rule.get("x-default", "none"))


def _cell(text: str) -> str:
    """Text that is safe within a table: no bars, and ``<name>`` as code so that it does not read as a tag."""
    return re.sub(r"([^\s;,]*<[^>]+>[^\s;,]*)", r"`\1`", text.replace("|", "\\|"))


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(renewed(document.read_text(encoding="utf-8")), encoding="utf-8")
