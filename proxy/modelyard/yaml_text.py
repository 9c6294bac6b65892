"""Data as YAML that reads back the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml


def yaml_text(document: Mapping[str, Any], *, width: int = 110) -> str:
    """A document of plain data as YAML, its keys in their order, without anchors.

    Text stays readable in every language, but where some sign is one that YAML takes for the end of a line: then
    all that is not ASCII is escaped.
    """
    joined = json.dumps(document, ensure_ascii=False)
    text: str = yaml.safe_dump(
        json.loads(joined), sort_keys=False, allow_unicode=joined.isprintable(), width=width
    )
    return text
