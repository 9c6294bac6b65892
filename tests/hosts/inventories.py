"""Inventories for test hosts, laid out as an operator would lay them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.hosts.machine import Host
from tests.parts.host_image import USER


def write_inventory(
    directory: Path,
    groups: Mapping[str, Sequence[Host]],
    models: Sequence[Mapping[str, Any]],
    fleet: Mapping[str, Any],
) -> Path:
    """Write ``hosts.yml`` and ``group_vars/all/{models,fleet}.yml`` into `directory` and return it.

    `groups` says which hosts are in which group. Hosts are reached by SSH with strict checking of their keys.
    """
    variables = directory / "group_vars" / "all"
    variables.mkdir(parents=True, exist_ok=True)
    known = {host.name: host for hosts in groups.values() for host in hosts}
    tree = {
        "all": {
            "hosts": {name: _connection(host) for name, host in sorted(known.items())},
            "children": {
                group: {"hosts": {host.name: None for host in hosts}} for group, hosts in groups.items()
            },
        }
    }
    _write(directory / "hosts.yml", tree)
    _write(variables / "fleet.yml", dict(fleet))
    write_models(directory, models)
    return directory


def write_models(directory: Path, models: Sequence[Mapping[str, Any]]) -> None:
    """Replace the models of the inventory in `directory`."""
    _write(directory / "group_vars" / "all" / "models.yml", {"models": [dict(model) for model in models]})


def _connection(host: Host) -> dict[str, str]:
    return {
        "ansible_host": host.address,
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(host.access.key),
        "ansible_ssh_common_args": " ".join(host.access.options),
        "ansible_python_interpreter": "/usr/bin/python3",
    }


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
