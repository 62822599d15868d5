"""Wall time by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["StageClock"]


class StageClock:
    """Adds up the milliseconds spent in named stages; for one thread."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._stages: dict[str, float] = {}
        self._running: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        started = self._running[name] = time.perf_counter()
        try:
            yield
        finally:
            del self._running[name]
            self._stages[name] = self._stages.get(name, 0.0) + 1e3 * (time.perf_counter() - started)

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds of each stage so far, in the order they began, and `total` since the clock was made."""
        now = time.perf_counter()
        running = {name: self._stages.get(name, 0.0) + 1e3 * (now - begun) for name, begun in self._running.items()}
        return {**self._stages, **running, "total": 1e3 * (now - self._started)}
