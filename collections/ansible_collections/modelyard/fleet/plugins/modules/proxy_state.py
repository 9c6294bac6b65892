#!/usr/bin/python
"""Ansible module: ask a proxy how it stands."""

from __future__ import annotations

import http.client
import json
import re
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.probe import PROBE_TIMEOUT_S, request
from ansible_collections.modelyard.fleet.plugins.module_utils.registry_file import RegistryFileError, parse

_SETTLE_S = 4.0  # a registry just written is noticed within a second or two
_METRIC = re.compile(r"^modelyard_registry_(generation|in_step) (\S+)$", re.MULTILINE)

DOCUMENTATION = r"""
module: proxy_state
short_description: Ask a proxy how it stands
description:
  - Asks the proxy on its own host whether it lives, is ready and which models it can serve, and reads its
    registry. Changes nothing and never fails for a proxy that is down.
options:
  url: {description: Where this host reaches its proxy., type: str, required: true}
  registry: {description: The proxy's registry file., type: path, required: true}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Ask the proxy
  modelyard.fleet.proxy_state:
    url: http://127.0.0.1:8000
    registry: /var/lib/modelyard/endpoints.yml
"""

RETURN = r"""
live: {description: Whether the process answers., type: bool, returned: always}
ready: {description: Whether it has a registry and a replica., type: bool, returned: always}
models: {description: C(id) and C(available) of each model., type: list, returned: always}
registry: {description: The registry file's content; empty where it cannot be read., type: dict, returned: always}
registry_problem: {description: Why the registry file cannot be read., type: str, returned: always}
generation: {description: Generation of the registry in force., type: int, returned: when the proxy tells}
in_step: {description: Whether the registry in force is the file's., type: bool, returned: when the proxy tells}
"""


def ask(url: str) -> tuple[int, Any]:
    """Status and JSON of a GET; status 0 when nobody answers."""
    try:
        status, body = request(url, None, PROBE_TIMEOUT_S)
    except (OSError, http.client.HTTPException):
        return 0, None
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None


def in_force(url: str) -> tuple[int | None, bool | None]:
    """Generation in force and whether it is the file's, from the proxy's metrics; None where it does not tell."""
    try:
        status, body = request(f"{url}/metrics", None, PROBE_TIMEOUT_S)
    except (OSError, http.client.HTTPException):
        return None, None
    found = dict(_METRIC.findall(body.decode("utf-8", "replace"))) if status == 200 else {}
    try:
        return int(float(found["generation"])), float(found["in_step"]) > 0
    except (KeyError, ValueError):
        return None, None


def settled(url: str, generation: int | None) -> tuple[int | None, bool | None]:
    """The same, asked again for a moment while the proxy has not yet taken the file's generation."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        seen, in_step = in_force(url)
        if seen is None or (seen == generation and in_step) or time.monotonic() > deadline:
            return seen, in_step
        time.sleep(0.25)


def read_registry(path: Path) -> tuple[dict[str, Any], str]:
    """The registry file's content, and why it cannot be read; both empty when there is none."""
    try:
        current = parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, RegistryFileError) as error:
        return {}, str(error)
    return {"generation": current.generation, "models": current.models or {}}, ""


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "registry": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    url = module.params["url"].rstrip("/")
    _, models = ask(f"{url}/models")
    listed = models if isinstance(models, list) else []
    registry, problem = read_registry(Path(module.params["registry"]))
    live = ask(f"{url}/live")[0] == 200
    generation, in_step = settled(url, registry.get("generation")) if live else (None, None)
    module.exit_json(
        changed=False,
        url=url,
        live=live,
        ready=ask(f"{url}/ready")[0] == 200,
        models=[{"id": one.get("id"), "available": bool(one.get("available"))} for one in listed],
        registry=registry,
        registry_problem=problem,
        generation=generation,
        in_step=in_step,
    )


if __name__ == "__main__":
    main()
