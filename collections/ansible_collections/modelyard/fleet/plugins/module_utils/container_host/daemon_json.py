"""What becomes of an engine's ``daemon.json`` when settings of ours are merged into it. Pure.

Three things are compared: what stands in the file, what is wished, and what was wished the last time. So what an
operator has written stays, and what we wrote and no longer wish goes.
"""

from __future__ import annotations

import json
import re
from typing import Any

Settings = dict[str, Any]

NONE, RELOAD, RESTART = "none", "reload", "restart"
_ORDER = (NONE, RELOAD, RESTART)

# What dockerd takes over at SIGHUP (docs.docker.com/reference/cli/dockerd, "Configuration reload behavior").
_RELOADED = frozenset(
    {
        "allow-nondistributable-artifacts",
        "authorization-plugins",
        "debug",
        "default-runtime",
        "features",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    }
)

# A daemon that starts with another one of these does not find its containers or their network again, live restore
# or not. The value is what counts as set where nothing is.
_NOT_SURVIVED: Settings = {
    "bip": None,
    "bridge": None,
    "cgroup-parent": None,
    "containerd": None,
    "data-root": "/var/lib/docker",
    "default-gateway": None,
    "default-gateway-v6": None,
    "exec-opts": [],
    "exec-root": "/var/run/docker",
    "fixed-cidr": None,
    "fixed-cidr-v6": None,
    "ipv6": False,
    "storage-driver": None,
    "storage-opts": [],
    "userns-remap": None,
}
_SNAPSHOTTER = "containerd-snapshotter"
_CREDENTIALS = re.compile(r"(\w+://)[^/@\s\"]+@")


class SettingsError(Exception):
    """The file cannot be used as it stands, or may not become what is wished."""


def parse(text: str, path: str) -> Settings:
    """The settings in a file's text; none in an empty one.

    Raises ``SettingsError`` with the place of the fault.
    """
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        place = (
            f"line {error.lineno}, column {error.colno}: " if isinstance(error, json.JSONDecodeError) else ""
        )
        said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise SettingsError(
            f"{path} is not valid JSON ({place}{said}), so nothing can be merged into it. Mend it or move it away; "
            f"nothing was changed on this host."
        ) from error
    if not isinstance(found, dict):
        raise SettingsError(
            f"{path} holds a JSON {type(found).__name__}, where an object of settings is needed. Mend it or move it "
            f"away; nothing was changed on this host."
        )
    return found


def merged(found: Settings, wished: Settings, before: Settings) -> Settings:
    """``found`` with ``wished`` in it, objects merged key by key, everything else replaced.

    What is in ``before``, the wish of the last time, still stands in ``found`` as it was wished and is no longer in
    ``wished`` is left out; an object that is empty then goes with it.
    """
    result: Settings = {}
    for key, value in found.items():
        if key in wished:
            continue
        if key in before:
            if value == before[key]:
                continue
            if isinstance(value, dict) and isinstance(before[key], dict):
                value = merged(value, {}, before[key])
        result[key] = value
    for key, value in wished.items():
        there = found.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            last = before.get(key)
            value = merged(there, value, last if isinstance(last, dict) else {})
        result[key] = value
    # the order of the file stays, so that a diff shows what changed and nothing else
    order = [key for key in found if key in result] + [key for key in wished if key not in found]
    return {key: result[key] for key in order}


def changed_keys(found: Settings, wanted: Settings) -> list[str]:
    """The settings whose values differ, in order of name."""
    absent = object()
    return sorted(key for key in {*found, *wanted} if found.get(key, absent) != wanted.get(key, absent))


def needs(found: Settings, wanted: Settings) -> str:
    """What a running daemon needs to follow: ``none``, ``reload`` or ``restart``."""
    keys = changed_keys(found, wanted)
    if not keys:
        return NONE
    if not _RELOADED.issuperset(keys) or _snapshotter(found) != _snapshotter(wanted):
        return RESTART
    return RELOAD


def more(one: str, other: str) -> str:
    """The greater need of two."""
    return max(one, other, key=_ORDER.index)


def not_survived(found: Settings, wanted: Settings) -> list[str]:
    """The settings whose change running containers would not survive, in order of name.

    Without live restore a restart ends them whatever has changed; that is told as ``live-restore``.
    """
    keys = [
        key for key, default in _NOT_SURVIVED.items() if found.get(key, default) != wanted.get(key, default)
    ]
    if _snapshotter(found) != _snapshotter(wanted):
        keys.append("features")
    if needs(found, wanted) == RESTART and not wanted.get("live-restore"):
        keys.append("live-restore")
    return sorted(keys)


def _snapshotter(settings: Settings) -> Any:
    features = settings.get("features")
    return features.get(_SNAPSHOTTER) if isinstance(features, dict) else None


def render(settings: Settings) -> str:
    """The text of a file."""
    return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"


def masked(text: str) -> str:
    """A text without the user and password of any URL in it."""
    return _CREDENTIALS.sub(r"\1***@", text)


def holds_credentials(text: str) -> bool:
    """Whether a URL in the text has a user or a password."""
    return _CREDENTIALS.search(text) is not None
