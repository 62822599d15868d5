"""Work that a thread does behind the one that goes on: what an encoder gave is written while it encodes the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Behind"]


class Behind:
    """Does work in one thread, in the order in which it is given, `most` pieces of it waiting at a time.

    What a piece raises is raised by a later `do`, or by the end of the block, which waits for all that was given.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="behind")
        self._waiting: deque[Future[None]] = deque()

    def do(self, work: Callable[[], None]) -> None:
        """Give it a piece; waits while too many do."""
        if len(self._waiting) == self._most:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(work))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)
