"""Shards that take turns at the encoder: while one has the device, others are tokenised, written and synced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from threading import Event, Lock
from typing import TypeVar

__all__ = ["AT_ONCE", "Turn", "in_turns"]

AT_ONCE = 3
"""Shards under way: one that is tokenised, one at the encoder, one that is written."""

Part = TypeVar("Part")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Turn:
    """What a shard is made with: `at_encoder` is entered where it needs the device, after the shards before it.

    `advance` is told how many passages are done.
    """

    at_encoder: AbstractContextManager[None]
    advance: Callable[[int], None]


class _StoppedError(Exception):
    """Ends what nobody waits for any more."""


def in_turns(
    parts: Iterable[tuple[int, Part]], make: Callable[[int, Part, Turn], Made], advance: Callable[[int], None],
    *, most: int = AT_ONCE,
) -> Generator[tuple[int, Made], None, None]:
    """What `make` makes of each part in a thread, `most` at a time, with its index and in the order of the parts.

    `advance` is told by one thread at a time. Raises what `make` raises of the first part of which it does, and what
    taking the next part does. Closed, it waits until what is under way has stopped, as it is when it tells its advance.
    """
    telling, stopped = Lock(), Event()

    def told(done: int) -> None:
        if stopped.is_set():
            raise _StoppedError
        with telling:
            advance(done)

    def made(index: int, part: Part, before: Event, after: Event) -> Made:
        try:
            return make(index, part, Turn(_turn(before, after, stopped), told))
        finally:
            after.set()

    under_way: deque[tuple[int, Future[Made]]] = deque()
    before = Event()
    before.set()
    with ThreadPoolExecutor(most, thread_name_prefix="shard") as threads:
        try:
            for index, part in parts:
                after = Event()
                under_way.append((index, threads.submit(made, index, part, before, after)))
                before = after
                if len(under_way) == most:
                    yield _first(under_way)
            while under_way:
                yield _first(under_way)
        finally:
            stopped.set()
            threads.shutdown(cancel_futures=True)


@contextmanager
def _turn(before: Event, after: Event, stopped: Event) -> Iterator[None]:
    before.wait()
    if stopped.is_set():
        raise _StoppedError
    yield
    after.set()


def _first(under_way: deque[tuple[int, Future[Made]]]) -> tuple[int, Made]:
    index, future = under_way.popleft()
    return index, future.result()
