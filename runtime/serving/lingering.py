"""A connection that is closed while its client may still be sending: what it was told has to reach it all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

__all__ = ["LingeringTransport"]


class LingeringTransport:
    """A transport whose `close` waits for a client that may still be sending; for all else it is the one it wraps.

    If a socket is closed with something unread in it, the system resets the connection, and the client's system drops
    whatever its program has not read by then: it never learns why it was refused. So only our half is closed, as soon
    as all is written, and what still arrives is dropped until the client closes its own, for `seconds` at most.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, seconds: float,
        may_be_sending: Callable[[], bool],
    ) -> None:
        self._transport, self._loop, self._seconds, self._may_be_sending = transport, loop, seconds, may_be_sending
        self._end: asyncio.TimerHandle | None = None

    @property
    def is_lingering(self) -> bool:
        """Whether all that arrives is to be dropped."""
        return self._end is not None

    def close(self) -> None:
        """Close it, or linger if the client may be sending."""
        if self._may_be_sending():
            self.linger()
        elif not self.is_lingering:
            self._transport.close()

    def linger(self) -> None:
        """Write nothing more, and close it once the client has."""
        if self.is_lingering or self._transport.is_closing():
            return
        self._end = self._loop.call_later(self._seconds, self._transport.close)
        self._transport.write_eof()
        self._transport.resume_reading()

    def forget(self) -> None:
        """The connection is lost."""
        if self._end is not None:
            self._end.cancel()

    def is_closing(self) -> bool:
        """Whether nothing can be written any more."""
        return self.is_lingering or self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Send it, unless that is over."""
        if not self.is_lingering:
            self._transport.write(data)

    def pause_reading(self) -> None:
        """Read no more for now, unless it is to drop it."""
        if not self.is_lingering:
            self._transport.pause_reading()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
