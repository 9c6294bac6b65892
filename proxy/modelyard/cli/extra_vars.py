"""Extra variables for a playbook that can carry anything a user typed.

Ansible treats extra variables as trusted templates: ``{{ lookup('pipe', ...) }}`` in one would run on the
controller. Strings tagged ``!unsafe`` in a YAML file are taken as they are, but for one thing: Ansible works out anew what
kind of value a tagged one is, quoted or not, so that ``!unsafe "3.11"`` is a number. What looks like anything but text
holds no template, and is written in quotes alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml


class _Unsafe(str):
    """A string that Ansible must not read as a template."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes ``_Unsafe`` with its tag."""


_TEXT = "tag:yaml.org,2002:str"


def _represent(dumper: yaml.SafeDumper, value: _Unsafe) -> yaml.ScalarNode:
    text = str(value)
    read_as = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    tag = "!unsafe" if read_as == _TEXT else _TEXT
    return dumper.represent_scalar(tag, text, style='"')


_Dumper.add_representer(_Unsafe, _represent)


def extra_vars_yaml(values: Mapping[str, Any]) -> str:
    """The variables as YAML in which every string value is text to Ansible, and never a template."""
    return yaml.dump(_marked(dict(values)), Dumper=_Dumper, allow_unicode=True, width=10_000)


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return _Unsafe(value)
    if isinstance(value, Mapping):
        return {str(key): _marked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item) for item in value]
    return value
