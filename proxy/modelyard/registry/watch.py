"""Follow a registry file: by polling its stat, which works on every file system and through every kind of
write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from modelyard.errors import RegistryRefusedError

from .apart import Pauses, load_apart, uncollected
from .keep import RegistryKeeper
from .model import Registry

_log = logging.getLogger(__name__)

# modification time in ns, inode, size, status-change time in ns
Signature = tuple[int, int, int, int]


def signature(path: Path) -> Signature | None:
    """What tells one version of the file from the next; ``None`` when there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size, found.st_ctime_ns)


def _written_in_place(old: Signature | None, new: Signature) -> bool:
    """Whether ``new`` is the same file as ``old`` with other content, not another one in its place."""
    return old is not None and old[1] == new[1] and (old[0], old[2]) != (new[0], new[2])


class RegistryWatcher:
    """Offers each new version of ``path`` to ``keeper``; what is refused or vanishes leaves the last good
    in force.
    """

    def __init__(
        self,
        path: Path,
        keeper: RegistryKeeper,
        *,
        interval_s: float,
        seen: Signature | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._keeper = keeper
        self._interval_s = interval_s
        self._sleep = sleep
        # the version that the keeper began with, so that the first look reads nothing twice
        self._seen = seen
        self._settling: Signature | None = None

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await self._sleep(self._interval_s)
            try:
                await self.look()
            except Exception:
                # one odd file must not end the watch; the next version may be sound
                _log.exception(
                    "registry %s: looking at it failed; the last good one stays in force", self._path
                )

    async def look(self) -> bool:
        """Look once; ``True`` when another registry came into force."""
        before = await asyncio.to_thread(signature, self._path)
        if before is None:
            self._vanished()
            return False
        if before == self._seen:
            if self._keeper.status.missing:
                self._keeper.status.missing = False
                _log.info("registry %s: is back, unchanged", self._path)
            return False
        if _written_in_place(self._seen, before) and before != self._settling:
            # Written in place, perhaps not to its end yet, and the first half of a registry may well be a valid
            # one: it has to stand still for a while. A renamed file is whole.
            self._settling = before
            return False
        with uncollected():
            return await self._take(before)

    async def _take(self, version: Signature) -> bool:
        loaded = await asyncio.to_thread(self._load)
        if await asyncio.to_thread(signature, self._path) != version:
            return False  # it was being written while we read: look at the finished version next time
        try:
            if isinstance(loaded, RegistryRefusedError):
                raise loaded
            change = await asyncio.to_thread(self._keeper.prepare, loaded, Pauses())
            self._keeper.offer(loaded, change)
        except RegistryRefusedError as exc:
            self._refuse(version, exc)
            return False
        self._seen = version
        _log.info("registry %s: generation %d is in force (%s)", self._path, loaded.generation, change)
        return True

    def _load(self) -> Registry | RegistryRefusedError:
        try:
            return load_apart(self._path, Pauses())
        except RegistryRefusedError as exc:
            return exc
        except Exception as exc:
            # a fault of ours that this version brings out: it is seen as any other refusal, and told once
            _log.exception("registry %s: reading it failed", self._path)
            said = f"{self._path}: reading it failed ({type(exc).__name__}); the log says where"
            return RegistryRefusedError(said)

    def _refuse(self, version: Signature, error: RegistryRefusedError) -> None:
        self._seen = version
        self._keeper.refuse(error.problems or (error.message,))
        _log.error(
            "registry %s: refused, generation %d stays in force:\n  %s",
            self._path,
            self._keeper.current.generation,
            "\n  ".join(self._keeper.status.problems),
        )

    def _vanished(self) -> None:
        if not self._keeper.status.missing:
            self._keeper.status.missing = True
            _log.warning(
                "registry %s: is gone; generation %d stays in force",
                self._path,
                self._keeper.current.generation,
            )
