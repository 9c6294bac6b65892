"""Copies of requests for another model, whose answers nobody waits for."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol

from multidict import CIMultiDict

from modelyard.errors import ModelyardError
from modelyard.registry.model import Queue, Registry

from .forward import Opened, Wish

_log = logging.getLogger(__name__)

MIRROR = "x-modelyard-mirror"
# a mirror that is slower than its model must not pile up work
_MOST = 64
_NO_QUEUE = Queue(size=0)


class Opener(Protocol):
    """Whoever turns wishes into answers."""

    def open(self, wish: Wish) -> AbstractAsyncContextManager[Opened]:
        """See ``Forwarder.open``."""


class Mirror:
    """Sends copies; at most 64 run at once, others are left out. ``sent`` and ``left_out`` count them."""

    def __init__(self, opener: Opener, registry: Callable[[], Registry], rng: random.Random) -> None:
        self._opener = opener
        self._registry = registry
        self._rng = rng
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = 0
        self.left_out = 0

    def offer(self, wish: Wish) -> None:
        """Copy ``wish`` where its model is mirrored and chance says so."""
        mirror = wish.model.mirror
        if mirror is None or wish.only is not None or wish.once is not None:
            return
        if self._rng.random() * 100 >= mirror.percent:
            return
        model = self._registry().models.get(mirror.model)
        if model is None or len(self._tasks) >= _MOST:
            self.left_out += 1
            return
        headers = CIMultiDict(wish.headers)
        headers[MIRROR] = "1"
        copy = replace(
            wish,
            model=replace(model, mirror=None, fallbacks=(), queue=_NO_QUEUE),
            headers=headers,
            visit=None,
            key=None,
        )
        task = asyncio.get_running_loop().create_task(self._send(copy), name=f"mirror {wish.request_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.sent += 1

    async def close(self) -> None:
        """Give up the copies that still run."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, wish: Wish) -> None:
        try:
            async with self._opener.open(wish) as opened:
                while await opened.response.chunk():
                    pass
        except ModelyardError as exc:
            _log.info("request %s: its copy for %s failed: %s", wish.request_id, wish.model.id, exc.message)
        except Exception:
            _log.exception("request %s: its copy for %s failed", wish.request_id, wish.model.id)
