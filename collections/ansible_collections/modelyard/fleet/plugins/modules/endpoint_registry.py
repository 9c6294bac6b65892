#!/usr/bin/python
"""Ansible module: write the endpoint registry, atomically and only when it differs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import registry_file as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.files import fsync_directory, write_atomically

DOCUMENTATION = r"""
module: endpoint_registry
short_description: Write the endpoint registry, atomically and only when it differs
description:
  - Compares the wished models with those in the file. Writes only when they or the generation differ.
  - A directory that is missing is made, with the file's owner and group; one that is there stays as it is.
  - A reader sees the old file or the new one, never a part.
  - A file that cannot be understood is not overwritten unless O(force) says so.
  - Files for other programs, made from the same models, are written beside it, each only when it differs.
options:
  path: {description: The registry file., type: path, required: true}
  models: {description: The registry's C(models)., type: dict, required: true}
  generation:
    description: Generation to write. Default is one more than the file's when the content differs.
    type: int
  write:
    description: Whether to write. Without it the module only reports what the file holds.
    type: bool
    default: true
  force:
    description: Overwrite a file that cannot be understood.
    type: bool
    default: false
  exports:
    description: Files for other programs, each with its whole content; written after the registry.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The file., type: path, required: true}
      content: {description: Its text., type: str, required: true}
  predicted:
    description: >-
      What an earlier run of the module has foretold in check mode for the same path (its C(predicted)): taken for the
      file's content, so that a second write is foretold rightly.
    type: dict
  owner: {description: Owner of the file., type: str}
  group: {description: Group of the file., type: str}
  mode: {description: Mode of the file., type: raw, default: '0640'}
  directory_mode: {description: Mode of the directory when it is made., type: raw, default: '0755'}
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Write the registry
  modelyard.fleet.endpoint_registry:
    path: /var/lib/modelyard/endpoints.yml
    models: {}
"""

RETURN = r"""
generation: {description: Generation of the file after the run., type: int, returned: always}
differs: {description: Whether the wished models differ from those found., type: bool, returned: always}
exists: {description: Whether there was a file., type: bool, returned: always}
exported: {description: Paths of the exports that are new or changed., type: list, elements: str, returned: when written}
predicted: {description: 'C(path), and C(generation), C(models) and C(exports) to be.', type: dict, returned: in check mode}
"""

SPEC: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "models": {"type": "dict", "required": True},
    "generation": {"type": "int"},
    "write": {"type": "bool", "default": True},
    "force": {"type": "bool", "default": False},
    "exports": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}},
    },
    "predicted": {"type": "dict"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw", "default": "0640"},
    "directory_mode": {"type": "raw", "default": "0755"},
}


def _read(path: Path, force: bool) -> tuple[str | None, lib.Current]:
    """The file's text and meaning. Raises ``RegistryFileError`` and ``OSError``."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None, lib.Current(0, None)
    except UnicodeDecodeError as error:
        text, problem = "", lib.RegistryFileError(f"{path} is no text: {error}")
    else:
        try:
            return text, lib.parse(text, str(path))
        except lib.RegistryFileError as error:
            problem = error
    if force:
        return text, lib.Current(0, None)
    raise lib.RegistryFileError(
        f"{problem}. It is left as it is: mend it, move it away, or set endpoint_registry_force"
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    path = Path(params["path"])
    models = params["models"]
    try:
        text, current = _read(path, params["force"])
    except (lib.RegistryFileError, OSError) as error:
        module.fail_json(msg=str(error))
    foretold = params["predicted"]
    if module.check_mode and foretold and foretold["path"] == str(path):
        current = lib.Current(int(foretold["generation"]), foretold["models"])
        text = lib.render(current.models or {}, current.generation)
    differs = current.models != models
    outcome: dict[str, Any] = {"differs": differs, "exists": text is not None}
    if not params["write"]:
        module.exit_json(changed=False, generation=current.generation, **outcome)
    wanted = params["generation"]
    if wanted is None:
        wanted = current.generation + 1 if differs else current.generation
    if wanted < current.generation:
        module.fail_json(
            msg=f"{path} has generation {current.generation}; a proxy would refuse to go back to {wanted}"
        )
    text_after = lib.render(models, wanted) if differs or wanted != current.generation else text
    diffs: list[dict[str, str]] = []
    changed = _put(module, path, text, text_after, diffs)
    before = (foretold or {}).get("exports") or {} if module.check_mode else {}
    outcome["exported"] = [str(item) for item in _exports(module, params["exports"], before, diffs)]
    if module.check_mode:
        exports = {item["path"]: item["content"] for item in params["exports"]}
        outcome["predicted"] = {"path": str(path), "generation": wanted, "models": models, "exports": exports}
    module.exit_json(changed=changed or bool(outcome["exported"]), generation=wanted, diff=diffs, **outcome)


def _exports(
    module: AnsibleModule,
    exports: list[dict[str, Any]],
    foretold: Mapping[str, str],
    diffs: list[dict[str, str]],
) -> list[Path]:
    """Write what differs; return the paths of what is new, changed or has got another owner or mode.

    ``foretold`` are contents by path that an earlier run in check mode has promised.
    """
    written = []
    for item in exports:
        path = Path(item["path"])
        before: str | None
        try:
            before = foretold[item["path"]] if item["path"] in foretold else path.read_text(encoding="utf-8")
        except FileNotFoundError:
            before = None
        except UnicodeDecodeError:
            before = ""  # no text of ours: it is replaced
        except OSError as error:
            module.fail_json(msg=f"The export {path} cannot be read: {error}")
        if _put(module, path, before, item["content"], diffs):
            written.append(path)
    return written


def _put(
    module: AnsibleModule, path: Path, before: str | None, after: str | None, diffs: list[dict[str, str]]
) -> bool:
    """Make a file hold ``after``, with the wished owner and mode; whether that is (or in check mode would be) new."""
    arguments = module.load_file_common_arguments(module.params, path=str(path))
    changed = before != after
    if changed and after is not None:
        header = str(path)
        diffs.append(
            {"before": before or "", "after": after, "before_header": header, "after_header": header}
        )
        if not module.check_mode:
            try:
                _write(module, path, after, arguments)
            except OSError as error:
                module.fail_json(msg=f"{path} cannot be written: {error}")
    if path.exists():
        changed = bool(module.set_fs_attributes_if_different(arguments, changed))
    return changed


def _write(module: AnsibleModule, path: Path, text: str, arguments: dict[str, Any]) -> None:
    """Write beside the file, give it owner and mode, then rename: no reader ever meets a forbidden file."""
    temporary = path.with_name(f".{path.name}.new")
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        folder = {**arguments, "path": str(path.parent), "mode": module.params["directory_mode"]}
        module.set_fs_attributes_if_different(folder, False)
    # 0600 until owner, group and the wished mode are set
    write_atomically(temporary, text.encode(), 0o600)
    try:
        module.set_fs_attributes_if_different({**arguments, "path": str(temporary)}, False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_directory(path.parent)


if __name__ == "__main__":
    main()
