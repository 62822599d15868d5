"""What questions are answered from: replaced in one step, and let go when the last question that reads it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import ClosedError
from glimmer_export.runtime.reader import Reader
from glimmer_export.runtime.store import MemoryStore

__all__ = ["CurrentStore", "Serving"]


@dataclass(frozen=True)
class Serving:
    """One generation of a store, None if a session has no store, and what reads it."""

    store: MemoryStore | None
    codec: Codec | None
    reader: Reader


class _Held:
    """A generation with the number of threads that read it, and whether it is the one for further questions."""

    __slots__ = ("current", "serving", "users")

    def __init__(self, serving: Serving) -> None:
        self.serving, self.users, self.current = serving, 0, True


class CurrentStore:
    """The generation that a session serves now, and earlier ones for as long as threads read them.

    Safe from several threads. `release` is called once: when it was closed and nobody reads any more.
    """

    def __init__(self, first: Serving, release: Callable[[], None]) -> None:
        self._lock = Lock()
        self._held = _Held(first)
        self._release = release
        self._open = 1
        self._closed = False

    @property
    def serving(self) -> Serving:
        """The newest, closed or not."""
        return self._held.serving

    @contextmanager
    def use(self) -> Iterator[Serving]:
        """The newest, which stays open to the end of the block; raises ClosedError once it was closed."""
        with self._lock:
            self._check()
            held = self._held
            held.users += 1
        try:
            yield held.serving
        finally:
            with self._lock:
                held.users -= 1
                done = not (held.users or held.current)
            if done:
                self._end(held)

    def replace(self, newer: Serving) -> None:
        """Serve this from now on; raises ClosedError, and leaves it to the caller, if it was closed meanwhile."""
        with self._lock:
            self._check()
            self._open += 1
            earlier, self._held = self._held, _Held(newer)
            earlier.current = False
            done = not earlier.users
        if done:
            self._end(earlier)

    def close(self) -> None:
        """Take no further questions; what is being read is let go with the last that reads it. Twice is once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._held.current = False
            done = not self._held.users
        if done:
            self._end(self._held)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("session", expected="an open one", found="one that was closed", fix="open another")

    def _end(self, held: _Held) -> None:
        if held.serving.store is not None:
            held.serving.store.close()
        with self._lock:
            self._open -= 1
            last = self._closed and not self._open
        if last:
            self._release()
