"""Ansible's variables as plain data; what cannot be rendered is reported with its path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleError
from ansible.template import Templar

Failed = Callable[[tuple[Any, ...], str], None]
Render = Callable[[Any], Any]

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def renderer(loader: Any, variables: Mapping[str, Any]) -> Render:
    """A function that renders one value under the variables of one host."""
    templar = Templar(loader=loader, variables=dict(variables))

    def render(value: Any) -> Any:
        return templar.template(value)

    return render


def plain(value: Any, failed: Failed, render: Render | None = None, path: tuple[Any, ...] = ()) -> Any:
    """The value as dict, list, str, int, float, bool and None, without Ansible's tags and lazy containers.

    With ``render`` every string that holds a template is rendered by itself, so that one which cannot be does not
    hide the others: it is reported to ``failed`` with its path and is None in the result.
    """
    try:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            if render is not None and any(mark in value for mark in _TEMPLATE_MARKS):
                return plain(render(value), failed, None, path)
            return str(value)
        for kind in (int, float):
            if isinstance(value, kind):
                return kind(value)
        if isinstance(value, Mapping):
            return {str(key): plain(value[key], failed, render, (*path, str(key))) for key in value}
        if isinstance(value, list | tuple):
            return [plain(item, failed, render, (*path, at)) for at, item in enumerate(value)]
        return str(value)  # decrypts a vault string
    except AnsibleError as error:
        failed(path, str(error.message).strip().rstrip("."))
        return None


def data(value: Any) -> Any:
    """The value as plain data; what cannot be rendered is None in it."""
    return plain(value, lambda _path, _why: None)
