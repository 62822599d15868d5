"""uvicorn's protocol with deadlines for a request to arrive and a response to be taken, and its refusals as JSON."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from glimmer_export.runtime.serving.errors import ServingError
from glimmer_export.runtime.serving.lingering import LingeringTransport

__all__ = ["protocol_with_deadline"]

MAX_HEAD_BYTES = 16 << 10
"""h11's own bound of a request's line and headers, which it holds only to those that come in parts."""
BAD_HTTP, HEAD_TOO_LARGE = 400, 431
HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class Connection(h11.Connection):
    """h11's, which refuses a head that is too large however it comes.

    `refusal` is the status of what it raised last.
    """

    refusal = BAD_HTTP

    def next_event(self) -> Any:
        """Raises h11.RemoteProtocolError."""
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.refusal = HEAD_TOO_LARGE if error.error_status_hint == HEAD_TOO_LARGE else BAD_HTTP
            raise
        if isinstance(event, h11.Request) and _head_bytes(event) > MAX_HEAD_BYTES:
            self.refusal = HEAD_TOO_LARGE
            raise h11.RemoteProtocolError("its head is too large")
        return event


def _head_bytes(request: h11.Request) -> int:
    return len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)


def protocol_with_deadline(
    receive_timeout_s: float, refused: Callable[[int, str], None] = lambda status, request_id: None
) -> type[H11Protocol]:
    """A protocol that takes a request only if all of it arrives in so many seconds.

    What it refuses, `refused` is told: the status, and the id that the client has of it.

    They are counted from the connection, and of a further request from its first byte; how long a connection may be
    idle in between is uvicorn's `timeout_keep_alive`. Without this a client that sends a byte a minute keeps its
    connection for ever.

    A client that in as many seconds takes nothing of what is there for it is let go. Without this its response would
    stay in memory, and a server that is to end would wait for it. One that is refused while it may still be sending is
    given as many to learn of it.
    """

    class Protocol(H11Protocol):
        """One connection."""

        conn: Connection
        _deadline: asyncio.TimerHandle | None = None
        _taking: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            self.conn = Connection(h11.SERVER, MAX_HEAD_BYTES)
            self.lingering = LingeringTransport(transport, self.loop, receive_timeout_s, self._may_be_sending)
            super().connection_made(self.lingering)  # type: ignore[arg-type]
            self._begin()

        def data_received(self, data: bytes) -> None:
            if self.lingering.is_lingering:
                return
            if self._deadline is None and not self._answering:
                self._begin()
            super().data_received(data)
            if self._answering:
                self._end()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()
            if self._answering:  # a further request, which came whole behind this one
                return
            if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:  # no further one has begun
                self._end()
            elif self._deadline is None and not self.transport.is_closing():
                self._unset_keepalive_if_required()
                self._begin()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            if self._taking is not None:
                self._taking.cancel()
            self.lingering.forget()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            if self.conn.refusal == HEAD_TOO_LARGE:
                self._refuse(ServingError(
                    HEAD_TOO_LARGE, "HeadTooLarge", f"a request's line and headers may have {MAX_HEAD_BYTES} bytes"
                ))
            else:
                self._refuse(ServingError(BAD_HTTP, "BadHttp", msg))

        def _may_be_sending(self) -> bool:
            """Whether the client has not sent all that it began with, or sends what is no HTTP."""
            return self.conn.their_state in {h11.SEND_BODY, h11.ERROR} or bool(self.conn.trailing_data[0])

        @property
        def _answering(self) -> bool:
            """Whether the client has sent all of a request, or can send nothing more."""
            return self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}

        def _unsupported_upgrade_warning(self) -> None:
            """A request for another protocol is answered in this one."""

        def _begin(self) -> None:
            self._deadline = self.loop.call_later(receive_timeout_s, self._too_slow)

        def _end(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _watch(self) -> None:
            """See to it that the client takes what has been written, of which it has not taken all yet."""
            left = self.transport.get_write_buffer_size()
            if left and self._taking is None:
                self._taking = self.loop.call_later(receive_timeout_s, self._check_taken, left)

        def _check_taken(self, before: int) -> None:
            self._taking = None
            if self.transport.get_write_buffer_size() >= before:
                self.transport.abort()
            else:
                self._watch()

        def _too_slow(self) -> None:
            self._deadline = None
            self._refuse(ServingError(408, "TooSlow", f"the request did not arrive within {receive_timeout_s:g} s"))

        def _refuse(self, error: ServingError) -> None:
            """Say so if nothing has been said yet, and close; whoever works on the request sees the client gone."""
            if self.transport.is_closing():
                return
            self._unset_keepalive_if_required()
            if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                request_id = uuid.uuid4().hex
                refused(error.status, request_id)
                body = error.body(request_id).model_dump_json().encode()
                headers = [
                    (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()),
                    (b"connection", b"close"), (b"x-request-id", request_id.encode()), *HEADERS,
                ]
                reason = HTTPStatus(error.status).phrase.encode()
                response = h11.Response(status_code=error.status, headers=headers, reason=reason)
                for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event) or b"")
            cycle: Any = self.cycle  # None before the first request
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
            self.lingering.linger()
            self._watch()

    return Protocol
