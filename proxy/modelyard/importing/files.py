"""The files of an imported inventory: their text, and how they reach the disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.errors import ConfigError
from modelyard.importing.gather import Inventory
from modelyard.inventory.adoption import is_secret_name
from modelyard.yaml_text import yaml_text

# what Ansible would render, and the only such thing that is written: see ``Vault.reference``
_TEMPLATE = re.compile(r"\{[{%#]")
_REFERENCE = re.compile(r"\{\{ vault_\w+ \}\}")
OURS = ("hosts.yml", "group_vars/all/models.yml", "group_vars/all/fleet.yml", "group_vars/all/vault.yml",
        "endpoints.yml")  # fmt: skip


def texts(made: Inventory, kind: str) -> dict[str, str]:
    """Every file by its path within the inventory."""
    host = {**made.connection, **made.settings}
    hosts = {
        "all": {
            "children": {
                "engine_hosts": {"hosts": {made.host: host}},
                "proxy_hosts": {"hosts": {made.host: None}},
            }
        }
    }
    files = {
        "hosts.yml": _page(
            hosts,
            f"From `modelyard import {kind}`. Look it over, then: modelyard check, modelyard plan, deploy.",
            "The proxy runs on the same host; move it to hosts of its own under proxy_hosts.",
        ),
        "group_vars/all/fleet.yml": _page(
            {"fleet_name": "modelyard", **made.fleet},
            "Settings of the fleet; docs/inventory.md lists them all.",
        ),
        "group_vars/all/models.yml": _page(
            {"models": [_plain(model) for model in made.models]}, *_notes(made)
        ),
    }
    if made.vault.where:
        files["group_vars/all/vault.yml"] = _page(
            dict.fromkeys(sorted(made.vault.where), ""),
            "Secrets that the import has seen and not written down. Fill them in, then encrypt this file:",
            "ansible-vault encrypt group_vars/all/vault.yml",
            *(f"{name}: {', '.join(where)}" for name, where in sorted(made.vault.where.items())),
        )
    if made.registry is not None:
        registry = {"version": 1, "models": made.registry}
        files["endpoints.yml"] = _page(
            registry, "The addresses as an endpoint registry: modelyard serve --registry endpoints.yml"
        )
    return files


def _notes(made: Inventory) -> list[str]:
    lines = ["What the fleet serves; docs/inventory.md explains every key."]
    if any("adopt" in model for model in made.models):
        lines.append("adopt names containers that run and stay as they are until the model's wish changes.")
    for title, notes in (("To do", made.todo), ("Not taken over", made.skipped), ("Remarks", made.remarks)):
        if notes:
            lines += ["", f"{title}:", *(f"- {note}" for note in notes)]
    return lines


def _plain(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model with everything that Ansible would take for a template made literal, but for our secrets."""
    return {
        key: {name: _literal(item, hidden=is_secret_name(name)) for name, item in value.items()}
        if key in ("args", "env")
        else _literal(value)
        for key, value in model.items()
    }


def _literal(value: Any, *, hidden: bool = False) -> Any:
    """``hidden``: references to the vault, as we write them, stay templates."""
    if isinstance(value, str):
        ours = hidden and _REFERENCE.fullmatch(value)
        return "{% raw %}" + value + "{% endraw %}" if _TEMPLATE.search(value) and not ours else value
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    return [_literal(item, hidden=hidden) for item in value] if isinstance(value, list) else value


def _page(document: Mapping[str, Any], *notes: str) -> str:
    lines = []
    for note in notes:
        printable = "".join(sign if sign.isprintable() else " " for sign in note)
        lines.append(f"# {printable}".rstrip())
    return "\n".join(["---", *lines]) + "\n" + yaml_text(document)


def write(directory: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write an inventory. ``ConfigError`` for a directory that is there, unless ``force``; then files of the same name
    are replaced and others stay, but for those of an import before that this one has not.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{directory} is a file: name a directory with -o.")
    if directory.exists() and any(directory.iterdir()) and not force:
        raise ConfigError(
            f"{directory} is there already and stays as it is: name another one with -o, or give --force to replace "
            "the inventory in it."
        )
    new = directory.with_name(f".{directory.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    try:
        for name, text in files.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        if not directory.exists():
            new.rename(directory)
            return
        for name in OURS:
            target = directory / name
            if name in files:
                target.parent.mkdir(parents=True, exist_ok=True)
                (new / name).replace(target)
            elif target.exists() and name != "group_vars/all/vault.yml":
                target.unlink()  # the vault may hold what somebody has filled in
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
