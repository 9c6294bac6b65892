"""The container engine of this host, through the Docker SDK: each call with an error that says what to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.modelyard.fleet.plugins.module_utils.containers.names import names_of

NO_SDK = (
    "this host lacks the Docker SDK for Python, with which containers are managed: install python3-docker "
    "(Debian, Ubuntu: apt install python3-docker; RHEL and its kin: dnf install python3-docker, from EPEL), "
    "or the package docker into the environment of {python}"
)
NO_ENGINE = (
    "{error} (is Docker running at {socket}, and may the connecting user use it: group docker, or become?)"
)
TIMEOUT_S = 120
"""Seconds that the engine may take for one answer, a stop's grace and the pulling of images aside."""
# how long a container may take to end after the engine gave up waiting for it
ENDING_S = 60.0
# how long Docker may take to notice that a container has ended
SETTLING_S = 10.0
# what the runtimes say of a container that has just ended
_ENDED = ("container not running", "cannot update a stopped container")


class EngineError(Exception):
    """Something that the operator must know about the engine or a container."""


class ConflictError(EngineError):
    """The engine is busy with just that container, or its name is taken: look again, then decide anew."""


class MissingError(EngineError):
    """There is no such container or image (any more)."""


class Engine:
    """One connection to the engine; not to be shared between threads, see :meth:`another`."""

    def __init__(self, socket: str, version: str | None = None) -> None:
        """Connect. Raises ``EngineError`` when the SDK is not there or the engine does not answer."""
        try:
            import docker
            import requests
        except ImportError as error:
            raise EngineError(NO_SDK.format(python=sys.executable)) from error
        self._socket = socket
        self._errors = docker.errors
        self._connection_errors = (docker.errors.DockerException, requests.RequestException, OSError)
        try:
            self._api = docker.APIClient(
                base_url=f"unix://{socket}", version=version or "auto", timeout=TIMEOUT_S
            )
            if version is None:
                self._api.ping()
        except self._connection_errors as error:
            raise EngineError(NO_ENGINE.format(error=_said(error), socket=socket)) from error

    def another(self) -> Engine:
        """A connection of its own for another thread."""
        return Engine(self._socket, self._api.api_version)

    def close(self) -> None:
        """Give the connection back."""
        self._api.close()

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        """The engine's list of all containers (that have these labels), stopped ones too."""
        with self._asking("the list of containers"):
            return list(self._api.containers(all=True, filters={"label": list(labels)}))

    def inspect(self, identity: str) -> dict[str, Any]:
        """Everything about one container. Raises ``MissingError``."""
        with self._asking(f"container {identity[:12]}"):
            return dict(self._api.inspect_container(identity))

    def image(self, reference: str) -> dict[str, Any] | None:
        """Everything about an image that this host has; None when it has none of this name."""
        return self._image(reference)[1]

    def _image(self, reference: str) -> tuple[str, dict[str, Any] | None]:
        """The name under which this host has an image, and everything about it."""
        for name in names_of(reference):
            try:
                with self._asking(f"image {name}"):
                    return name, dict(self._api.inspect_image(name))
            except MissingError:
                continue
        return reference, None

    def pull(self, reference: str) -> None:
        """Fetch an image by tag or digest. Raises ``EngineError`` with the registry's word."""
        with self._asking(f"pulling {reference}"):
            for line in self._api.pull(reference, stream=True, decode=True):
                if "error" in line:
                    raise EngineError(f"pulling {reference}: {line['error']}")

    def create(self, name: str, body: dict[str, Any]) -> str:
        """Create a container; its id. Raises ``ConflictError`` when the name is taken."""
        if "@" in body["Image"]:
            body = {**body, "Image": self._image(body["Image"])[0]}
        with self._asking(f"creating {name}"):
            return str(self._api.create_container_from_config(body, name)["Id"])

    def start(self, identity: str, name: str) -> None:
        """Start a container; fine when it runs."""
        with self._asking(f"starting {name}"):
            self._api.start(identity)

    def stop(self, identity: str, name: str, grace_s: int) -> None:
        """Stop a container and make sure that it does not run any more; fine when it is gone.

        A busy engine gives up waiting for the end of what it has killed, and says so: what counts is what is seen.
        """
        failure: EngineError | None = None
        try:
            try:
                with self._asking(f"stopping {name}"):
                    self._api.stop(identity, timeout=grace_s)
            except MissingError:
                return
            except EngineError as error:
                failure = error
            end = time.monotonic() + (ENDING_S if failure is not None else 0.0)
            while True:
                state = self.inspect(identity)["State"]
                if not (state.get("Running") or state.get("Restarting")):
                    return
                if time.monotonic() >= end:
                    break
                time.sleep(0.5)
        except MissingError:
            return
        raise failure or EngineError(
            f"stopping {name}: Docker says that it stopped, but it is {state.get('Status')}"
        )

    def rename(self, identity: str, name: str) -> None:
        """Give a container another name. Raises ``ConflictError`` when that is taken."""
        with self._asking(f"renaming a container to {name}"):
            self._api.rename(identity, name)

    def set_restart(self, identity: str, name: str, policy: str) -> None:
        """Set the restart policy of a container: ``no``, ``unless-stopped``.

        Docker asks the runtime about a container that it believes to run. One that ends in that moment is asked again
        once Docker knows that it has ended.
        """
        end = time.monotonic() + SETTLING_S
        while True:
            try:
                with self._asking(f"setting the restart policy of {name}"):
                    self._api.update_container(identity, restart_policy={"Name": policy})
            except EngineError as error:
                if not any(word in str(error) for word in _ENDED) or time.monotonic() >= end:
                    raise
                time.sleep(0.2)
            else:
                return

    def remove(self, identity: str, name: str) -> None:
        """Remove a stopped container with its anonymous volumes; fine when it is gone."""
        try:
            with self._asking(f"removing {name}"):
                self._api.remove_container(identity, v=True)
        except MissingError:
            return

    @contextmanager
    def _asking(self, about: str) -> Iterator[None]:
        try:
            yield
        except self._errors.NotFound as error:
            raise MissingError(f"{about}: {_said(error)}") from error
        except self._errors.APIError as error:
            kind = ConflictError if error.status_code == 409 else EngineError
            raise kind(f"{about}: {_said(error)}") from error
        except self._connection_errors as error:
            raise EngineError(
                f"{about}: {NO_ENGINE.format(error=_said(error), socket=self._socket)}"
            ) from error


class ForeseenEngine(Engine):
    """An engine that is not there yet, as a check sees it whose run would have installed it: it has nothing."""

    def __init__(self) -> None:
        """There is nothing to connect to."""

    def another(self) -> Engine:
        """Itself: it has no connection to share."""
        return self

    def close(self) -> None:
        """Nothing is open."""

    def containers(self, *labels: str) -> list[dict[str, Any]]:
        """None."""
        return []

    def image(self, reference: str) -> dict[str, Any] | None:
        """None: which ones the run would have loaded or pulled by then is not known."""
        return None


def _said(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip() or type(error).__name__


def make_directory(
    path: Path, owner: int, group: int, mode: int, own: Callable[[Path, int, int], None]
) -> None:
    """Make a directory that a container writes to; those above it that are missing stay open to read.

    ``own`` is ``os.chown``. Raises ``EngineError``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True)
        found = path.stat()
        if (found.st_uid, found.st_gid) != (owner, group):
            own(path, owner, group)
        if found.st_mode & 0o7777 != mode:
            path.chmod(mode)
    except OSError as error:
        raise EngineError(
            f"{path} cannot be made a directory of user {owner}, group {group}: {error.strerror}"
        ) from error
