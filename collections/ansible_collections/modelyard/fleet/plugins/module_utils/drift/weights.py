"""The weights of a host: what the completion marker of each directory says, against what is declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils import snapshot as lib
from ansible_collections.modelyard.fleet.plugins.module_utils.fetch import without_userinfo
from ansible_collections.modelyard.fleet.plugins.module_utils.manifest import (
    MANIFEST,
    WeightsError,
    damaged,
    read_manifest,
)
from ansible_collections.modelyard.fleet.plugins.module_utils.sources import KINDS, kinds_in


def weights_difference(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """How one directory differs from its declared source, None when it does not; sizes are compared, not content.

    ``item`` is one of the role ``model_weights``: model, source, destination, owner, group. Gives ``destination``,
    ``field``, ``wanted`` and ``found``.
    """
    snapshot = lib.parse(dict(item))
    place = snapshot.destination
    if snapshot.in_place:
        try:
            lib.look(snapshot, full=False)
        except WeightsError as error:
            return _difference(str(place), snapshot.kind, "readable weights", str(error).partition(": ")[2])
        return None
    wanted = _identity(snapshot.source)
    if not place.exists():
        return _difference(str(place), "revision", wanted, "no such directory")
    manifest = read_manifest(place)
    if manifest is None:
        lost = "cannot be read" if (place / MANIFEST).exists() else "is missing"
        return _difference(
            str(place), "marker", wanted, f"{MANIFEST} {lost}: the download is not known to be whole"
        )
    if manifest.source != snapshot.source:
        return _difference(str(place), "revision", wanted, _identity(manifest.source))
    wrong = damaged(place, manifest)
    if wrong:
        names = "; ".join(f"{name} {reason}" for name, reason in sorted(wrong.items())[:3])
        return _difference(str(place), "files", f"{len(manifest.files)} files as in {MANIFEST}", names)
    return None


def _identity(source: Mapping[str, str]) -> str:
    """``org/name at 0123456789ab``, without credentials of a URL."""
    key = next(iter(kinds_in(source)), "")
    pin = str(source.get(KINDS[key].pin, "")) if key else ""
    name = str(source[key]) if key else "another source"
    return f"{without_userinfo(name) if '://' in name else name} at {pin[:12] or 'no revision'}"


def _difference(destination: str, field: str, wanted: str, found: str) -> dict[str, Any]:
    return {"destination": destination, "field": field, "wanted": wanted, "found": found}
