"""Changes of the store in turn: one thread makes them, and the session takes each over before the next begins."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from starlette.requests import Request

from glimmer_export.runtime.serving.errors import ServingError
from glimmer_export.runtime.serving.exchange import ClientLeftError
from glimmer_export.runtime.session import Session
from glimmer_export.runtime.writes import Writer, Written

__all__ = ["Writes"]

MAX_WAITING = 16
"""Writes that wait for their turn: each holds a body."""


class Writes:
    """What a server does with its `writer`. A write waits at most `wait_s` for its turn.

    `on_written` is told of a write that was made and what it took in seconds.
    """

    def __init__(
        self, session: Session, writer: Writer, wait_s: float, on_written: Callable[[Written, float], None]
    ) -> None:
        self._session, self._writer, self._wait_s, self._on_written = session, writer, wait_s, on_written
        self._thread = ThreadPoolExecutor(1, "glimmer-write")
        self._under_way = 0
        self._seconds = 0.0

    async def make(self, request: Request, change: Callable[[Writer], Written]) -> Written:
        """Make a change, and have the session answer from the generation that it made.

        What has begun is finished, whoever waits for it. Raises ServingError 429 if too many wait, or it does for too
        long; ClientLeftError, if nobody waits before its turn; what the change or `Session.refresh` raises.
        """
        if self._under_way > MAX_WAITING:
            raise self._too_many()
        self._under_way += 1
        begun: Future[Written] = self._thread.submit(self._make, change)
        written = asyncio.wrap_future(begun)
        timer = asyncio.get_running_loop().call_later(self._wait_s, begun.cancel)
        leaving = asyncio.create_task(_until_left(request, begun))
        try:
            return await asyncio.shield(written)
        except asyncio.CancelledError:
            if not begun.cancelled():  # it is the request that was cancelled
                begun.cancel()
                raise
            if leaving.done():
                raise ClientLeftError from None
            raise self._too_many() from None
        finally:
            self._under_way -= 1
            timer.cancel()
            leaving.cancel()

    def close(self) -> None:
        """Finish what has begun, and let go of the writer."""
        self._thread.shutdown(cancel_futures=True)
        self._writer.close()

    def _make(self, change: Callable[[Writer], Written]) -> Written:
        begun = time.monotonic()
        written = change(self._writer)
        self._session.refresh()
        self._seconds = time.monotonic() - begun
        self._on_written(written, self._seconds)
        return written

    def _too_many(self) -> ServingError:
        return ServingError(
            429, "TooManyWrites", "others are being written; send this again later",
            retry_after_s=max(1, math.ceil(self._seconds * self._under_way)),
        )


async def _until_left(request: Request, begun: Future[Written]) -> None:
    """Give a write up if its client leaves before its turn; the body has been read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    begun.cancel()
