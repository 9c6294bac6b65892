"""What the planner reads and decides upon, as frozen data.

States have three values: ``up``, ``down`` and ``unknown``. Inside the planner a fourth one, ``absent``,
marks a replica that the last deploy applied but that a host which did answer no longer has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UP = "up"
DOWN = "down"
UNKNOWN = "unknown"
ABSENT = "absent"
FORESEEN = "foreseen"


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights come from. ``kind`` is one of ``sources.KINDS``; ``pin`` revision or sha256, or the digest of
    ``checksums`` (path and SHA-256 of each file), where these stand in the inventory.
    """

    kind: str
    value: str
    pin: str | None = None
    checksums: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Adoption:
    """A container that the inventory names as replica ``index`` of a model on a host.

    ``port`` is where it listens there, None where it publishes one alone; ``accepted`` says that the model's wish is
    the one that it was named for.
    """

    model: str
    engine: str
    host: str
    container: str
    index: int
    port: int | None = None
    served_name: str | None = None
    accepted: bool = True


@dataclass(frozen=True, slots=True)
class Adopted:
    """A container that is a replica without being ours: its name, its id, and whether it may stay as it is.

    ``named`` is false for one that the inventory names no more.
    """

    container: str
    id: str
    served_name: str | None = None
    accepted: bool = True
    named: bool = True


@dataclass(frozen=True, slots=True)
class Pin:
    """A place that the inventory names for one replica of a model."""

    host: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """What each GPU of a replica must have, in bytes, and who says so ("the estimate").

    ``at_least`` is None where nobody knows. A GPU with as much as ``proved`` is enough whatever is said: it has run there.
    """

    at_least: int | None = None
    source: str = ""
    proved: int | None = None

    def met_by(self, memory: int | None) -> bool:
        """Whether a GPU has enough, as far as anybody knows."""
        if memory is None or self.at_least is None or memory >= self.at_least:
            return True
        return self.proved is not None and memory >= self.proved


@dataclass(frozen=True, slots=True)
class Model:
    """One wished model with all defaults filled in; ``hosts`` are names, the pattern already resolved.

    ``images`` are by host those of a release that the model is held at; they go before all others. ``pins`` are the
    places of its first replicas, ``need`` is what a GPU must have for it.
    """

    id: str
    name: str
    task: str
    engine: str
    hosts: tuple[str, ...]
    pattern: str
    replicas: int
    gpus: int
    source: Source | None = None
    image: str | None = None
    images: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    routing: Mapping[str, Any] = field(default_factory=dict)
    smoke: Mapping[str, Any] = field(default_factory=dict)
    rollout: Mapping[str, Any] = field(default_factory=dict)
    golden: Mapping[str, Any] = field(default_factory=dict)
    adopt: tuple[Adoption, ...] = ()
    pins: tuple[Pin, ...] = ()
    need: Need = Need()


@dataclass(frozen=True, slots=True)
class Gpu:
    """What is known of one GPU. ``memory`` in bytes, None where nobody knows; ``reason`` says why it is not well.

    ``names`` are what else it is called; one that the host does not show has none and is ``seen`` no more. ``used`` are
    bytes by replica.
    """

    index: int | None = None
    health: str = UP
    reason: str = ""
    memory: int | None = None
    names: frozenset[str] = frozenset()
    seen: bool = True
    used: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Host:
    """One engine host: its settings, and what was seen on it.

    ``gpus`` are those that may be given to models; ``blocked_gpus`` says by GPU who else uses it, ``unwell_gpus`` why no
    new replica gets it; ``devices`` is what is known of each, ``gpu_groups`` are sets that are joined (0 by fast links,
    1 behind one PCIe switch, 2 on one NUMA node), ``gpu_links`` how many fast links join two directly;
    ``listening`` are the TCP ports somebody listens on; ``docker`` is ``up``, ``absent`` or ``unknown``, or ``foreseen``
    in a check of a run that installs it.
    A host whose ``state`` is ``unknown`` did not answer (or was not asked) and keeps what it had.
    """

    name: str
    state: str = UP
    runtime: str = "docker"
    accelerator: str = "cpu"
    gpus: tuple[str, ...] = ()
    gpu_mode: str = "cdi"
    address: str = "127.0.0.1"
    first_port: int = 8100
    last_port: int = 8199
    home: str = "/var/lib/modelyard"
    weights_dir: str = "/var/lib/modelyard/weights"
    cache_dir: str = "/var/lib/modelyard/cache"
    volumes_dir: str = "/var/lib/modelyard/volumes"
    python: str = "python3"
    images: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    container_user: str | None = None
    ulimits: Mapping[str, int] = field(default_factory=dict)
    read_only: bool = True
    log_max_size: str = "50m"
    log_max_files: int = 5
    blocked_gpus: Mapping[str, str] = field(default_factory=dict)
    unwell_gpus: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Gpu] = field(default_factory=dict)
    gpu_groups: tuple[tuple[int, frozenset[str]], ...] = ()
    gpu_links: Mapping[frozenset[str], int] = field(default_factory=dict)
    listening: frozenset[int] = frozenset()
    docker: str = UP

    def health_of(self, gpu: str) -> str:
        """``up``, ``down`` or ``unknown``; of a GPU that nothing is said of ``up``."""
        return self.devices[gpu].health if gpu in self.devices else UP

    def memory_of(self, gpu: str) -> int | None:
        """Bytes; None where nobody knows."""
        return self.devices[gpu].memory if gpu in self.devices else None

    def runtime_of(self, model: Model) -> str:
        """Which runtime this model would have here."""
        return model.runtime or self.runtime


@dataclass(frozen=True, slots=True)
class Current:
    """A replica that exists now, or that the last deploy applied on a host that does not answer now.

    ``spec`` is the redacted launch spec it was started with, ``hash`` that of the full one. ``lost`` says why one
    that runs as wished has to be replaced all the same; empty when it need not.
    """

    replica: str
    model: str
    host: str
    index: int
    state: str
    gpus: tuple[str, ...] = ()
    port: int | None = None
    runtime: str = "docker"
    engine: str = ""
    hash: str | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    lost: str = ""
    adopted: Adopted | None = None

    @property
    def kept_as_it_is(self) -> bool:
        """Whether it is an adopted container that runs and fulfils the wish: then its place is not judged."""
        return self.adopted is not None and self.adopted.accepted and self.state == UP and not self.lost

    @property
    def fixed(self) -> bool:
        """Whether its state is unknown: it is never stopped or moved, and holds its GPUs and port."""
        return self.state == UNKNOWN


@dataclass(frozen=True, slots=True)
class Slot:
    """A decided place: which replica of which model, where, with what.

    ``was`` is the replica that holds this place now, if any. ``wished`` is false for a replica that nobody
    asks for any more but that cannot be stopped, because its state is unknown.
    """

    model: str
    host: str
    index: int
    gpus: tuple[str, ...]
    port: int
    runtime: str
    was: Current | None = None
    wished: bool = True

    @property
    def replica(self) -> str:
        """Its id."""
        return replica_id(self.host, self.model, self.index)


@dataclass(frozen=True, slots=True)
class Placement:
    """The result of placing: slots in order of replica id, replicas to stop, and what could not be done.

    ``heirs`` names, by the id of a replica to stop, the one that is started elsewhere in its place before. ``notes`` are
    remarks on what was done all the same.
    """

    slots: tuple[Slot, ...]
    dropped: tuple[Current, ...]
    problems: tuple[str, ...]
    heirs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def replica_id(host: str, model: str, index: int) -> str:
    """``<host>.<model id>.<index>``."""
    return f"{host}.{model}.{index}"
