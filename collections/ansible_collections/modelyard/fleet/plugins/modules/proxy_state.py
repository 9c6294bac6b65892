#!/usr/bin/python
"""Ansible module: ask a proxy how it stands."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.probe import PROBE_TIMEOUT_S, request

DOCUMENTATION = r"""
module: proxy_state
short_description: Ask a proxy how it stands
description:
  - Asks the proxy on its own host whether it lives, is ready and which models it can serve, and reads its
    registry's generation. Changes nothing and never fails for a proxy that is down.
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
registry: {description: The registry file's content where it is JSON., type: dict, returned: always}
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


def read_registry(path: Path) -> dict[str, Any]:
    """The registry as the role wrote it; empty when it is not there, or is no JSON (written by hand)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


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
    module.exit_json(
        changed=False,
        url=url,
        live=ask(f"{url}/live")[0] == 200,
        ready=ask(f"{url}/ready")[0] == 200,
        models=[{"id": one.get("id"), "available": bool(one.get("available"))} for one in listed],
        registry=read_registry(Path(module.params["registry"])),
    )


if __name__ == "__main__":
    main()
