#!/usr/bin/python
# Copyright: Modelyard contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: bring images out of an archive file into the container engine."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_archive
short_description: Bring images out of an archive file into the container engine
description:
  - Loads an archive that C(docker save) has written, where the engine does not have exactly its images. They are
    compared by digest first, so that nothing is loaded a second time.
  - Needs nothing but Python's standard library.
author: Modelyard contributors (@modelyard)
options:
  path: {description: The archive on this host., type: path}
  state:
    description:
      - C(described) says what the archive holds.
      - C(compared) says whether the engine lacks any of O(images), without the archive.
      - C(loaded) loads what the engine lacks.
    type: str
    choices: [described, compared, loaded]
    default: loaded
  images:
    description: Images as C(described) returns them; needed with O(state=compared).
    type: list
    elements: dict
    default: []
    suboptions:
      ids: {description: Digests under which an engine may know the image., type: list, elements: str, required: true}
      tags: {description: Its names., type: list, elements: str, default: []}
  socket: {description: Socket of the engine's API., type: path, default: /var/run/docker.sock}
attributes:
  check_mode:
    description: Compares, and says what would be loaded. An engine that does not answer counts as one without images.
    support: full
  diff_mode:
    description: Names the images that are loaded.
    support: full
"""

EXAMPLES = r"""
- name: Bring an image to a host without a registry
  modelyard.fleet.image_archive:
    path: /srv/images/vllm.tar
"""

RETURN = r"""
images:
  description: What the archive holds, C(ids) and C(tags) of each image.
  returned: always
  type: list
  elements: dict
missing:
  description: The images that the engine does not have, or did not have.
  returned: unless O(state=described)
  type: list
  elements: str
"""

import http.client
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host import archive
from ansible_collections.modelyard.fleet.plugins.module_utils.container_host.archive import (
    ArchiveError,
    Image,
)

SPEC: dict[str, Any] = {
    "path": {"type": "path"},
    "state": {"type": "str", "choices": ["described", "compared", "loaded"], "default": "loaded"},
    "images": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "ids": {"type": "list", "elements": "str", "required": True},
            "tags": {"type": "list", "elements": "str", "default": []},
        },
    },
    "socket": {"type": "path", "default": "/var/run/docker.sock"},
}


def bring(params: dict[str, Any], check: bool) -> dict[str, Any]:
    """The module's result. Raises ``ArchiveError``, ``OSError`` and ``http.client.HTTPException``."""
    socket = Path(params["socket"])
    if params["state"] == "compared":
        wanted = [Image(tuple(one["ids"]), tuple(one["tags"])) for one in params["images"]]
    else:
        wanted = archive.images(Path(params["path"]))
    result: dict[str, Any] = {
        "changed": False,
        "images": [{"ids": one.ids, "tags": one.tags} for one in wanted],
    }
    if params["state"] == "described":
        return result
    try:
        lacking = archive.missing(wanted, socket)
    except OSError:
        if not check:
            raise
        lacking = wanted  # earlier tasks of this check would have started the engine
    result["missing"] = [one.name for one in lacking]
    if params["state"] == "loaded" and lacking:
        result["changed"] = True
        result["diff"] = {"before": "", "after": "".join(f"{one.name} ({one.ids[0]})\n" for one in lacking)}
        if not check:
            archive.load(Path(params["path"]), socket)
            if still := archive.missing(wanted, socket):
                raise ArchiveError(
                    f"{params['path']} was loaded, but the engine has no {', '.join(one.name for one in still)} of it."
                )
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=SPEC,
        supports_check_mode=True,
        required_if=[
            ("state", "described", ["path"]),
            ("state", "loaded", ["path"]),
            ("state", "compared", ["images"]),
        ],
    )
    try:
        result = bring(module.params, module.check_mode)
    except ArchiveError as error:
        module.fail_json(msg=str(error))
    except (OSError, ValueError, http.client.HTTPException) as error:
        module.fail_json(msg=f"The container engine cannot be asked at {module.params['socket']}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
