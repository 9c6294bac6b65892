#!/usr/bin/python
"""Ansible module: bring models' weights to a host, whole and verified."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.modelyard.fleet.plugins.module_utils import s3, sealing
from ansible_collections.modelyard.fleet.plugins.module_utils import snapshot as lib
from ansible_collections.modelyard.fleet.plugins.module_utils import weights_staging as staged
from ansible_collections.modelyard.fleet.plugins.module_utils.files import human
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    MANIFEST,
    Manifest,
    UnreachedError,
    WeightsError,
    give_to,
    read_manifest,
    wrongly_owned,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS

DOCUMENTATION = r"""
module: model_snapshot
short_description: Bring models' weights to a host, whole and verified
description:
  - Fetches each model from a hub (pinned revision), a URL (SHA-256), or a place with a list of checksums (http, S3,
    rsync, a directory), or from another host; or checks that a given path is readable.
  - A manifest with sizes and hashes is written last. A directory without a fitting manifest is never trusted.
  - An interrupted download goes on where it stopped.
  - A model whose source is a path is only looked at, never changed.
  - With C(progress) the action of the same name runs a download in the background of the host and says how far it is.
options:
  snapshots:
    description: The models. Their order is kept.
    type: list
    elements: dict
    required: true
    suboptions:
      model:
        description: The model's id, for messages.
        type: str
        required: true
      source:
        description: >-
          Exactly one of C(path), C(custom), C(hub) with C(revision), C(url) with C(sha256), and C(files), C(s3), C(rsync)
          or C(copy) with C(sha256) or C(checksums).
        type: dict
        required: true
        suboptions:
          path: {description: An existing file or directory of this host., type: str}
          hub: {description: A model of the hub., type: str}
          revision: {description: The commit (40 hex digits)., type: str}
          url: {description: One file or archive (tar, tar.gz, zip)., type: str}
          files: {description: An http(s) directory., type: str}
          s3: {description: "C(s3://BUCKET/PREFIX).", type: str}
          rsync: {description: A directory as rsync names it., type: str}
          copy: {description: "A directory of this host, such as an NFS mount.", type: str}
          custom: {description: The name of weights that somebody put into the model's volume., type: str}
          sha256: {description: "The SHA-256 of what the URL gives, or of the SHA256SUMS of a directory.", type: str}
          checksums: {description: "SHA-256 of each file by its path, in place of C(sha256).", type: dict}
      destination:
        description: The directory for the weights. Unused with C(path).
        type: str
      owner:
        description: Numeric user that gets the files; -1 leaves them to the user that runs the module.
        type: int
        default: -1
      group:
        description: Numeric group that gets the files; -1 as for O(snapshots[].owner).
        type: int
        default: -1
  fetch:
    description: Whether to download. Without it the module looks and lists what is pending.
    type: bool
    default: true
  verify:
    description: >-
      C(quick) compares sizes with the manifest, C(changed) also hashes files whose size, times or inode are not those of
      when they were hashed last, C(full) hashes all.
    type: str
    choices: [quick, changed, full]
    default: quick
  mend:
    description: Whether what is damaged or of another owner is to be fetched or given back; without it, it is an error.
    type: bool
    default: true
  peer:
    description: >-
      Copy from another host in place of the source: its C(host) (for messages) and C(bytes), and C(number) (of the
      directory), C(address), C(port), C(user), C(key), C(host_keys); or C(directory) and C(rate) on the same machine.
    type: dict
  watch:
    description: Only say how many bytes a download that goes on has brought.
    type: bool
    default: false
  progress:
    description: Say how far a download is, see above.
    type: bool
    default: false
  s3_endpoint:
    description: Base URL of the S3-compatible store.
    type: str
    default: https://s3.amazonaws.com
  s3_region:
    description: Region of the store.
    type: str
    default: us-east-1
  s3_credentials_file:
    description: File on this host with the store's key, as C(~/.aws/credentials).
    type: path
  offline:
    description: Never use the network; missing weights are an error.
    type: bool
    default: false
  reserve_bytes:
    description: Bytes that must stay free on the file system.
    type: int
    default: 0
  hub_endpoint:
    description: Base URL of the hub.
    type: str
    default: https://huggingface.co
  hub_token_file:
    description: File on this host that holds a token for the hub.
    type: path
  hub_python:
    description: A Python on this host that has huggingface_hub, which then moves the bytes; default is to do without.
    type: path
  timeout_s:
    description: Seconds without a byte after which a connection is given up.
    type: float
    default: 30.0
  state:
    description: C(absent) removes directories that hold a manifest of this module, and no others.
    type: str
    choices: [present, absent]
    default: present
author: [Modelyard]
"""

EXAMPLES = r"""
- name: Fetch one model
  modelyard.fleet.model_snapshot:
    snapshots:
      - model: qwen2.5-7b
        source: {hub: Qwen/Qwen2.5-7B-Instruct, revision: a09a35458c702b33eeacc393d103063234e8bc28}
        destination: /srv/weights/qwen2.5-7b
        owner: 1000
        group: 1000
"""

RETURN = r"""
snapshots:
  description: >-
    One entry per model with C(model), C(destination), C(action), C(reason), C(source) (the identity of what is
    wanted), C(bytes), C(hashed) (bytes that were read to check them), C(in_place) (nothing is ever fetched),
    C(partial) (bytes of an unfinished download) and C(fetchable) (false where this host lacks the directory to copy from).
  type: list
  returned: always
unreached:
  description: Of a failure, ids of the models whose C(peer) could not be reached at all.
  type: list
  returned: failed
pending:
  description: Ids of the models that must be fetched or given to their owner.
  type: list
  returned: always
"""

SPEC: dict[str, Any] = {
    "snapshots": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "model": {"type": "str", "required": True},
            "source": {
                "type": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str"},
                    "hub": {"type": "str"},
                    "revision": {"type": "str"},
                    "url": {"type": "str"},
                    **{key: {"type": "str"} for key in ("files", "s3", "rsync", "copy", "custom", "sha256")},
                    "checksums": {"type": "dict"},
                },
            },
            "destination": {"type": "str"},
            "owner": {"type": "int", "default": -1},
            "group": {"type": "int", "default": -1},
        },
    },
    "fetch": {"type": "bool", "default": True},
    "verify": {"type": "str", "choices": ["quick", "changed", "full"], "default": "quick"},
    "mend": {"type": "bool", "default": True},
    "peer": {"type": "dict"},
    "watch": {"type": "bool", "default": False},
    "progress": {"type": "bool", "default": False},
    "s3_endpoint": {"type": "str", "default": "https://s3.amazonaws.com"},
    "s3_region": {"type": "str", "default": "us-east-1"},
    "s3_credentials_file": {"type": "path", "no_log": False},
    "offline": {"type": "bool", "default": False},
    "reserve_bytes": {"type": "int", "default": 0},
    "hub_endpoint": {"type": "str", "default": "https://huggingface.co"},
    "hub_token_file": {"type": "path", "no_log": False},
    "hub_python": {"type": "path"},
    "timeout_s": {"type": "float", "default": 30.0},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def _present(
    snapshot: lib.Snapshot, options: lib.Options, params: dict[str, Any], check_mode: bool
) -> tuple[dict[str, Any], Manifest | None, Manifest | None]:
    """One model: its result, and its manifest before and after."""
    fetch = params["fetch"]
    finding = lib.look(snapshot, options.full, options.changed)
    before = after = finding.manifest
    result: dict[str, Any] = {
        "model": snapshot.model,
        "destination": str(snapshot.destination),
        "action": "keep",
        "reason": f"{human(finding.bytes)} as they should be",
        "bytes": finding.bytes,
        "hashed": finding.hashed,
        "source": snapshot.source,
        "in_place": snapshot.in_place,
        "partial": staged.bytes_below(staged.staging_of(snapshot.destination)),
        "fetchable": snapshot.kind != "copy" or Path(snapshot.source["copy"]).is_dir(),
    }
    if not params["mend"]:
        _refuse(snapshot, finding)
    if finding.stamps is not None and finding.manifest is not None and not finding.own and not check_mode:
        lib.seal(snapshot, finding.manifest, finding.stamps)
    if finding.fetch is None and not finding.own:
        return result, before, after
    lib.check_rights(snapshot)
    if finding.fetch is None:
        result |= {"action": "own", "reason": f"{finding.own} files belong to another user or group"}
        if fetch and not check_mode:
            _own(snapshot, options)
        return result, before, after
    if options.offline and KINDS[snapshot.kind].contacts:
        lib.refuse_offline(snapshot, finding)
    result |= {"action": "fetch", "reason": f"{snapshot.destination} {finding.fetch}"}
    if not fetch:
        return result, before, after
    origin = f"{options.peer['host']}'s {snapshot.origin}" if options.peer else snapshot.origin
    if check_mode:
        size = int(options.peer["bytes"]) if options.peer else lib.expected_bytes(snapshot, options)
        amount = "an unknown number of bytes" if size is None else human(size)
        if size is not None:
            lib.require_space(snapshot.destination, size, options.reserve, snapshot.origin)
        result["reason"] += f"; would download {origin} ({amount})"
        result["bytes"] = size or 0
        after = Manifest(snapshot.model, snapshot.source, ())
    else:
        after = lib.obtain(snapshot, finding, options)
        result["reason"] += f"; downloaded {origin} ({human(after.size)})"
        result["bytes"] = after.size
    return result, before, after


def _own(snapshot: lib.Snapshot, options: lib.Options) -> None:
    """Give the files to their owner; what was right before is right after it, only its change time is another."""
    finding = lib.look(snapshot, options.full, changed=True)
    wrong = wrongly_owned(snapshot.destination, snapshot.owner, snapshot.group)
    give_to(wrong, snapshot.owner, snapshot.group)
    if finding.manifest is not None and finding.fetch is None:
        lib.seal(snapshot, finding.manifest, sealing.stamps(snapshot.destination, finding.manifest))


def _refuse(snapshot: lib.Snapshot, finding: lib.Finding) -> None:
    """Raise for whatever an engine must not be started on."""
    place = snapshot.destination
    wrong = finding.fetch
    if wrong is None and finding.own:
        first = wrongly_owned(place, snapshot.owner, snapshot.group)[0]
        state = first.lstat()
        wrong = (
            f"has {finding.own} files of another owner than {snapshot.owner}:{snapshot.group}, which the engine runs as "
            f"({first} belongs to {state.st_uid}:{state.st_gid})"
        )
    if wrong is not None:
        raise WeightsError(
            f"{snapshot.model}: {place} {wrong}. No engine is started on it; playbooks/weights.yml brings it in order"
        )


def _absent(snapshot: lib.Snapshot, check_mode: bool) -> dict[str, Any]:
    """Remove one model's directory, if it is ours."""
    place = snapshot.destination
    result = {"model": snapshot.model, "destination": str(place), "action": "keep", "reason": "is not there"}
    if snapshot.in_place:
        return result | {"reason": f"source.{snapshot.kind} is never removed"}
    staging = staged.staging_of(place)
    ours = [path for path in (place, staging) if path.exists()]
    if place.exists() and read_manifest(place) is None:
        raise WeightsError(
            f"{snapshot.model}: {place} has no {MANIFEST}, so it is not removed: look at it yourself"
        )
    if ours:
        result |= {"action": "remove", "reason": f"{place} is no longer wanted"}
    if not check_mode:
        for path in ours:
            shutil.rmtree(path)
        Path(f"{staging}.lock").unlink(missing_ok=True)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    params = module.params
    done: list[dict[str, Any]] = []
    diff: list[dict[str, str]] = []
    problems: list[str] = []
    unreached: list[str] = []
    if params["watch"]:
        watched = [
            staged.watch(Path(item["destination"])) for item in params["snapshots"] if item["destination"]
        ]
        module.exit_json(changed=False, watched=[{"have": have, "total": total} for have, total in watched])
    try:
        token_file = params["hub_token_file"]
        token = Path(token_file).read_text(encoding="utf-8").strip() if token_file else None
        credentials = params["s3_credentials_file"]
        keys = s3.read_credentials(Path(credentials)) if credentials else ("", "", "")
    except OSError as error:
        module.fail_json(msg=f"the hub's token file cannot be read: {error}")
    except WeightsError as error:
        module.fail_json(msg=str(error))
    options = lib.Options(
        full=params["verify"] == "full",
        offline=params["offline"],
        reserve=params["reserve_bytes"],
        hub_endpoint=params["hub_endpoint"],
        hub_python=params["hub_python"] or "",
        token=token,
        timeout_s=params["timeout_s"],
        changed=params["verify"] == "changed",
        store=s3.Store(params["s3_endpoint"], params["s3_region"], *keys),
        peer=params["peer"],
    )
    for item in params["snapshots"]:
        try:
            snapshot = lib.parse(item)
            if params["state"] == "absent":
                done.append(_absent(snapshot, module.check_mode))
                continue
            result, before, after = _present(snapshot, options, params, module.check_mode)
        except WeightsError as error:
            text = str(error)
            if isinstance(error, UnreachedError):
                unreached.append(item["model"])
            problems.append(text if text.startswith(item["model"]) else f"{item['model']}: {text}")
            continue
        except OSError as error:
            problems.append(f"{item['model']}: {error}")
            continue
        done.append(result)
        if result["action"] == "fetch" and params["fetch"]:
            diff.append(
                {
                    "before": lib.summary(snapshot, before),
                    "after": lib.summary(snapshot, after),
                    "before_header": str(snapshot.destination),
                    "after_header": result["reason"],
                }
            )
    pending = [result["model"] for result in done if result["action"] != "keep"]
    acts = params["fetch"] or params["state"] == "absent"
    outcome = {"snapshots": done, "pending": pending, "changed": bool(pending) and acts, "diff": diff}
    if problems:
        module.fail_json(msg="\n".join(problems), unreached=unreached, **outcome)
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
