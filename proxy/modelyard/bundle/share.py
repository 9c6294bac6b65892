"""What of a bundle one host gets. Pure: the plan says what runs where, the manifest what there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.bundle.manifest import Manifest
from modelyard.bundle.weights import identity, left_to_hosts


def contents(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """A verified bundle as the playbook ``bundle_apply`` takes it, with absolute paths."""
    return {
        "directory": str(directory),
        "without": list(manifest.without),
        "images": [
            {
                "reference": part.details["reference"],
                "loaded_as": part.details["loaded_as"],
                "archive": str(directory / part.path),
            }
            for part in manifest.of_kind("image")
        ],
        "weights": [
            {
                "source": dict(part.details["source"]),
                "from": str(directory / part.path),
                "files": [
                    {"path": file.path[len(part.path) + 1 :], "size": file.size, "sha256": file.sha256}
                    for file in manifest.files_of(part)
                ],
            }
            for part in manifest.of_kind("weights")
        ],
        "wheels": {
            part.path.rpartition("/")[2]: {
                "directory": str(directory / part.path),
                "lock": str(directory / part.path / part.details["lock"]),
                "pythons": list(part.details["pythons"]),
                "machine": part.details["machine"],
            }
            for part in manifest.of_kind("wheels")
        },
        "packages": [
            {
                "platform": part.details["platform"],
                "directory": str(directory / part.path),
                "names": list(part.details["names"]),
            }
            for part in manifest.of_kind("packages")
        ],
    }


def share(
    bundle: Mapping[str, Any], replicas: Sequence[Mapping[str, Any]], weights: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The part of one host: ``images``, ``weights`` as the module ``model_handover`` takes them, and what is ``missing``.

    ``replicas`` are those that are to run there, ``weights`` what they need, as the role ``model_weights`` takes it.
    Whether weights that the bundle lacks are on the host already is for the module to see.
    """
    without = bundle["without"]
    wanted = {
        str(item["spec"]["image"]): item["model"]
        for item in replicas
        if item["spec"].get("image") and not item.get("adopted")
    }
    there = {item["reference"]: item for item in bundle["images"]}
    missing = [
        f"{model}: the image {reference} is not in the bundle"
        for reference, model in wanted.items()
        if reference not in there and "image" not in without
    ]
    return {
        "images": [dict(there[reference]) for reference in wanted if reference in there],
        "weights": [
            found for item in weights if (found := _weights(bundle["weights"], item, without)) is not None
        ],
        "missing": missing,
    }


def _weights(
    parts: Sequence[Mapping[str, Any]], item: Mapping[str, Any], without: Sequence[str]
) -> dict[str, Any] | None:
    source = {key: str(value) for key, value in item["source"].items()}
    if left_to_hosts(source):
        return None
    which = identity(source)
    part = next((one for one in parts if _same(one["source"], which)), None)
    if part is None and ("path" in source or "weights" in without):
        return None  # the operator has seen to these
    single = part is not None and "path" in source and "file" in part["source"]
    return {
        **{key: item[key] for key in ("model", "source", "destination", "owner", "group")},
        "from": part["from"] if part else "",
        "files": part["files"] if part else None,
        "single": single,
    }


def _same(there: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a bundle's weights are those that an inventory means; of a path the file's name does not count."""
    if "path" in wanted:
        return there.get("path") == wanted["path"]
    return dict(there) == dict(wanted)


def wheel_problems(
    wheels: Mapping[str, Any], title: str, python: str, machine: str, without: Sequence[str]
) -> list[str]:
    """Why a host with this Python (``3.11.2``) cannot be installed from the bundle's wheels; nothing when it can."""
    if "wheels" in without:
        return []
    found = wheels.get(title)
    version = ".".join(python.split(".")[:2])
    if found is None:
        return [f"the bundle has no wheels for {title}: make it anew from this inventory"]
    if version not in found["pythons"]:
        return [
            f"its Python is {version}, and the bundle has wheels for {', '.join(found['pythons'])}: "
            f"make it anew with --python {version} (beside the others)"
        ]
    if machine != found["machine"]:
        return [f"it is {machine}, and the bundle's wheels are for {found['machine']}"]
    return []
