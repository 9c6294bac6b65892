"""Ansible's tagged strings and lazy containers as plain data, and what could not be rendered as problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleError

Path = tuple[Any, ...]


def plain(value: Any, failed: Callable[[Path, str], None], path: Path = ()) -> Any:
    """The value as dict, list, str, int, float, bool and None.

    Rendering happens here, on access. A value that cannot be rendered is reported to ``failed`` with its
    path, and is None in the result.
    """
    try:
        return _plain(value, failed, path)
    except AnsibleError as error:
        failed(path, _reason(error))
        return None


def _plain(value: Any, failed: Callable[[Path, str], None], path: Path) -> Any:
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {str(key): _item(value, key, failed, (*path, str(key))) for key in value}
    if isinstance(value, list | tuple):
        return [_item(value, at, failed, (*path, at)) for at in range(len(value))]
    return str(value)


def _item(container: Any, key: Any, failed: Callable[[Path, str], None], path: Path) -> Any:
    try:
        return _plain(container[key], failed, path)
    except AnsibleError as error:
        failed(path, _reason(error))
        return None


def _reason(error: AnsibleError) -> str:
    return str(error.message).strip().rstrip(".")
