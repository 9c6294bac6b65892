"""The registry in force: taken whole or refused whole, never half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelyard.errors import RegistryRefusedError

from .diff import RegistryDiff, diff
from .model import Registry

Listener = Callable[[Registry, RegistryDiff], None]
Preparer = Callable[[Registry, Callable[[], None]], None]


@dataclass(slots=True)
class RegistryStatus:
    """How the file and the registry in force stand to each other. Times are seconds since the epoch."""

    source: str
    taken_at: float
    taken: int = 1
    refused: int = 0
    refused_at: float | None = None
    problems: tuple[str, ...] = ()
    missing: bool = False

    @property
    def in_step(self) -> bool:
        """Whether what is in force is what the source says."""
        return not self.problems and not self.missing


class RegistryKeeper:
    """Owns the registry in force and tells its listeners, in order, when another takes its place."""

    def __init__(self, registry: Registry, source: str, clock: Callable[[], float]) -> None:
        self._current = registry
        self._clock = clock
        self._listeners: list[Listener] = []
        self._preparers: list[Preparer] = []
        self.status = RegistryStatus(source=source, taken_at=clock())

    @property
    def current(self) -> Registry:
        """The last good registry."""
        return self._current

    def listen(self, listener: Listener) -> None:
        """Call ``listener(registry, diff)`` after each change; it must not raise."""
        self._listeners.append(listener)

    def prepare_with(self, preparer: Preparer) -> None:
        """Let ``preparer(registry, pause)`` do in ``prepare`` what its listener would take long for."""
        self._preparers.append(preparer)

    def prepare(self, registry: Registry, pause: Callable[[], None]) -> RegistryDiff:
        """What ``offer`` would take long for, beforehand and in a thread, which calls ``pause`` all the while.

        Changes nothing that anybody can see. The present registry must not change until ``offer``. Raises what
        ``offer`` would raise.
        """
        self._check(registry)
        change = diff(self._current, registry, pause)
        for preparer in self._preparers:
            preparer(registry, pause)
        return change

    def offer(self, registry: Registry, change: RegistryDiff | None = None) -> RegistryDiff:
        """Put ``registry`` in force; ``change`` is what ``prepare`` said of it.

        Raises ``RegistryRefusedError`` when its generation is lower than the present one.
        """
        self._check(registry)
        if change is None:
            change = diff(self._current, registry)
        self._current = registry
        self.status.taken_at = self._clock()
        self.status.taken += 1
        self.status.problems = ()
        self.status.missing = False
        for listener in self._listeners:
            listener(registry, change)
        return change

    def _check(self, registry: Registry) -> None:
        if registry.generation < self._current.generation:
            said = (
                f"{self.status.source}: generation {registry.generation} is lower than "
                f"{self._current.generation}, which is in force; write the file with a higher one"
            )
            raise RegistryRefusedError(said, [said])

    def refuse(self, problems: Sequence[str]) -> None:
        """Note that what the source says now is not taken, and why."""
        self.status.refused += 1
        self.status.refused_at = self._clock()
        self.status.problems = tuple(problems)
        self.status.missing = False
