"""Something that goes on in a thread of its own while a test does something else."""

from __future__ import annotations

import abc
import threading
from types import TracebackType
from typing import Self

_PATIENCE_S = 120


class Aside(abc.ABC):
    """Works from entering the context to leaving it, which waits until the work has ended."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self._thread = threading.Thread(target=self.work, name=type(self).__name__)

    @abc.abstractmethod
    def work(self) -> None:
        """The work; it ends soon after `over` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._thread.join(_PATIENCE_S)
