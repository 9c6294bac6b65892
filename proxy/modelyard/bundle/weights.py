"""Weights: fetched by the module that fetches them on hosts, or taken from a directory of this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from modelyard.bundle.manifest import BundleError
from modelyard.bundle.paths import slug
from modelyard.bundle.sources import Collected, Told, bytes_below, run, watching

MODULE = "ansible_collections.modelyard.fleet.plugins.modules.model_snapshot"
_MARKER = ".modelyard-manifest.json"  # of the module; hosts get one of their own
_ADDRESS = "url"

CARRIED = ("hub", "url", "path")
"""The kinds of sources whose weights a bundle takes along."""

Run = Callable[..., str]


def left_to_hosts(source: Mapping[str, str]) -> bool:
    """Whether a bundle leaves weights of this source to the hosts, which have them or fetch them as without a bundle."""
    return not any(kind in source for kind in CARRIED)


def identity(source: Mapping[str, str]) -> dict[str, str]:
    """Which weights a source of an inventory means, without its address, which may hold a secret.

    For a URL that is the checksum, and the file's name, on which it depends whether it is unpacked.
    """
    found = {
        key: value.lower() if key == "sha256" else value for key, value in source.items() if key != _ADDRESS
    }
    if _ADDRESS in source:
        found["file"] = PurePosixPath(urlsplit(source[_ADDRESS]).path).name or "weights"
    return found


def shown(source: Mapping[str, str]) -> str:
    """Weights in words."""
    found = identity(source)
    if "hub" in found:
        return f"{found['hub']}@{found.get('revision', '')[:12]}"
    if "sha256" in found:
        return f"{found['file']}@{found['sha256'][:12]}"
    return found.get("path") or ", ".join(found.values())


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """The weights of one source.

    ``collections`` is the directory on Python's path that has the module, ``given`` a file or directory of this machine to
    take them from in place of fetching them, ``token_file`` holds a token for the hub.
    """

    source: Mapping[str, str]
    models: tuple[str, ...]
    collections: Path
    hub_endpoint: str
    token_file: str = ""
    given: Path | None = None
    run: Run = field(default=run, compare=False)
    kind: str = "weights"

    @property
    def name(self) -> str:
        """See ``shown``."""
        return shown(self.source)

    @property
    def path(self) -> str:
        """Of its directory."""
        return f"weights/{slug(self.name.strip('/'))}"

    @property
    def wish(self) -> Mapping[str, Any]:
        """The identity, and the directory that it is taken from."""
        return {"weights": identity(self.source), "from": str(self.given) if self.given else None}

    def expected(self) -> int | None:
        """Bytes of the directory, or what the server says."""
        if self.given is not None:
            return bytes_below(self.given)
        try:
            return self._module(Path("/nonexistent/modelyard"), check=True) or None
        except BundleError:
            return None

    def collect(self, scratch: Path, told: Told) -> Collected:
        """See ``Source.collect``."""
        content = scratch / "content"
        which = identity(self.source)
        details = {"source": which, "models": sorted(self.models)}
        told.part(self.name, self.expected())
        if self.given is None:
            with watching(scratch, told):
                self._module(content, check=False)
            return Collected(content, details, (_MARKER,))
        shutil.rmtree(content, ignore_errors=True)
        with watching(content, told):
            try:
                if self.given.is_dir():
                    # links inside lead to the files that are meant, as in the hub's own cache
                    shutil.copytree(self.given, content, ignore=shutil.ignore_patterns(_MARKER))
                else:
                    content.mkdir()
                    shutil.copyfile(self.given, content / self.given.name)
            except (OSError, shutil.Error) as error:
                raise BundleError(f"{self.given} cannot be copied: {error}") from error
        if not bytes_below(content):
            raise BundleError(f"{self.given} holds no weights: name a directory with files, or a file.")
        if not self.given.is_dir():
            which["file"] = self.given.name
        return Collected(content, details)

    def _module(self, destination: Path, *, check: bool) -> int:
        """Run the module; the bytes that it says the weights have."""
        arguments = {
            "snapshots": [
                {"model": self.models[0], "source": dict(self.source), "destination": str(destination), "owner": -1,
                 "group": -1}
            ],
            "hub_endpoint": self.hub_endpoint,
            "hub_python": sys.executable,
            "_ansible_check_mode": check,
        }  # fmt: skip
        if self.token_file:
            arguments["hub_token_file"] = self.token_file
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.collections), *_own_path()])}
        try:
            # by standard input: a URL may hold a secret
            text = self.run([sys.executable, "-m", MODULE], f"The weights {self.name} could not be fetched",
                            stdin=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), environment=environment)  # fmt: skip
        except BundleError as error:
            raise BundleError(
                _message(error.problems) or error.message, () if _message(error.problems) else error.problems
            ) from error
        (snapshot,) = json.loads(text)["snapshots"]
        return int(snapshot.get("bytes") or 0)


def _own_path() -> list[str]:
    given = os.environ.get("PYTHONPATH")
    return [given] if given else []


def _message(lines: tuple[str, ...]) -> str:
    """What the module says of its failure, out of the JSON that it printed."""
    for line in reversed(lines):
        try:
            document = json.loads(line)
        except ValueError:
            continue
        if isinstance(document, dict) and document.get("msg"):
            return str(document["msg"])
    return ""
