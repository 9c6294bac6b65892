"""The controller of a closed network: the locks of its checkout, and the settings that name the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.bundle.manifest import BundleError, Manifest, write
from modelyard.bundle.paths import sha256_of
from modelyard.inventory import read_sources
from modelyard.yaml_text import yaml_text

SETTINGS = "zz-bundle.yml"
"""Of ``group_vars/all``: Ansible reads its files by name, and the last one wins."""

_HEAD = """\
# Written by `modelyard bundle apply`, which overwrites it. It has the last word in group_vars/all.
# To leave the closed network behind, delete it.
"""


def same_locks(directory: Path, manifest: Manifest, root: Path) -> None:
    """The wheels for proxies are what the checkout at ``root`` installs; else ``BundleError``."""
    for part in manifest.of_kind("wheels"):
        ours = root / "proxy" / "requirements" / part.details["lock"]
        if part.path == "wheels/proxies" and sha256_of(
            directory / part.path / part.details["lock"]
        ) != sha256_of(ours):
            raise BundleError(
                f"The bundle was made by another Modelyard ({manifest.modelyard}) than {root}, which wants other Python "
                "packages: use that of the bundle's project/, or make the bundle anew with this one. Nothing was touched."
            )


def settings_place(inventory: Path) -> Path:
    """Where an inventory gets the settings. ``BundleError`` where a file there would hide others."""
    variables = (inventory if inventory.is_dir() else inventory.parent) / "group_vars"
    place = variables / "all" / SETTINGS
    hidden = [variables / name for name in ("all", "all.yml", "all.yaml", "all.json")]
    for file in hidden:
        # Ansible reads a directory `all` or a file, never both
        if file.is_file():
            raise BundleError(
                f"{file} is one file, and a directory beside it would hide it: move it to "
                f"{variables / 'all' / 'fleet.yml'}, which Ansible reads just the same. Nothing was touched."
            )
    if place.is_symlink():
        raise BundleError(f"{place} is a symbolic link: it is not overwritten. Nothing was touched.")
    return place


def settings(directory: Path, manifest: Manifest) -> dict[str, Any]:
    """The fleet settings with which deploys need nothing from outside."""
    found: dict[str, Any] = {}
    if any(part.path == "wheels/proxies" for part in manifest.of_kind("wheels")):
        found["fleet_proxy_wheelhouse"] = str(directory / "wheels" / "proxies")
    if "weights" not in manifest.without and "image" not in manifest.without:
        found["fleet_offline"] = True
    return found


def settings_text(directory: Path, manifest: Manifest) -> str:
    """The file with them."""
    found = settings(directory, manifest)
    return f"---\n{_HEAD}{yaml_text(found) if found else '{}' + chr(10)}"


def write_settings(place: Path, text: str, *, check: bool) -> bool:
    """Bring the file to this content; whether it had another one. Raises ``OSError``."""
    try:
        if place.read_text(encoding="utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    if not check:
        place.parent.mkdir(parents=True, exist_ok=True)
        write(place, text)
    return True


def overruled(inventory: Path, place: Path) -> list[str]:
    """Where the inventory sets the same for some hosts only, which then goes before what the bundle needs."""
    names = ("fleet_offline", "fleet_proxy_wheelhouse")
    found = []
    for variables in read_sources(inventory).variables:
        if variables.scope == ("group", "all"):
            continue
        for name in names:
            if name in variables.values:
                position = variables.positions.get((name,))
                where = f"{position.file}:{position.line}" if position else " ".join(variables.scope)
                found.append(
                    f"{where} sets {name} for {' '.join(variables.scope)}, which goes before {place.name}: take it out."
                )
    return found
