"""Put the collections of requirements.yml beside our own, out of the pinned wheel.

The ``ansible`` wheel carries every collection of the distribution, 600 MB unpacked. Only the few that are
needed are taken out of it, so neither a Galaxy server nor that much disk is asked for. The wheel's hash is
checked by pip; a collection that is there in the wanted version is left alone.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
INSTALLED = HERE / "ansible_collections"


def wanted() -> dict[str, str]:
    """Collection names and versions out of requirements.yml."""
    listed = yaml.safe_load((HERE / "requirements.yml").read_text(encoding="utf-8"))["collections"]
    return {entry["name"]: entry["version"] for entry in listed}


def manifest_version(manifest: bytes) -> str:
    """The version that a collection's MANIFEST.json states."""
    content: dict[str, Any] = json.loads(manifest)
    return str(content["collection_info"]["version"])


def present(name: str, version: str) -> bool:
    """Whether the collection is already there, complete, in this version."""
    manifest = INSTALLED / name.replace(".", "/") / "MANIFEST.json"
    return manifest.is_file() and manifest_version(manifest.read_bytes()) == version


def unpack(wheel: zipfile.ZipFile, name: str, version: str) -> None:
    """Take one collection out of the wheel; it appears at its place only when it is whole.

    :raises SystemExit: the wheel holds another version than requirements.yml asks for.
    """
    prefix = f"ansible_collections/{name.replace('.', '/')}/"
    carried = manifest_version(wheel.read(prefix + "MANIFEST.json"))
    if carried != version:
        sys.exit(f"{name} {version} is wanted, the wheel of wheel.txt carries {carried}: change one of them.")
    destination = INSTALLED / name.replace(".", "/")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as scratch:
        members = [item for item in wheel.namelist() if item.startswith(prefix)]
        wheel.extractall(scratch, members)
        shutil.rmtree(destination, ignore_errors=True)
        (Path(scratch) / prefix).rename(destination)


def main() -> None:
    """Fetch what is missing."""
    missing = {name: version for name, version in wanted().items() if not present(name, version)}
    if not missing:
        return
    print(f"Fetching {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", "--requirement", str(HERE / "wheel.txt"), "--dest", scratch],
            check=True,
        )  # fmt: skip
        (path,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            for name, version in missing.items():
                unpack(wheel, name, version)


if __name__ == "__main__":
    main()
