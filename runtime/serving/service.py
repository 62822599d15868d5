"""What the endpoints work with, and how they read a request and write a response."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.serving.batching import Line
from glimmer_export.runtime.serving.errors import ServingError, invalid
from glimmer_export.runtime.serving.exchange import Asked, Desk
from glimmer_export.runtime.serving.log import log_refused
from glimmer_export.runtime.serving.metrics import Metrics
from glimmer_export.runtime.serving.settings import Settings
from glimmer_export.runtime.serving.worker import Worker
from glimmer_export.runtime.serving.writes import Writes
from glimmer_export.runtime.session import Session
from glimmer_export.runtime.writes import Writer

__all__ = ["Service", "as_json", "read_body", "service_of"]

Model = TypeVar("Model", bound=BaseModel)
ROWS_OF_A_BATCH = 8
"""Of the greatest length: what a batch takes if nothing else is said."""


@dataclass(frozen=True)
class Service:
    """A session, its worker and what is counted. `not_ready` is why no question is to be taken, whatever happens.

    `writes` is None where passages are not written.
    """

    session: Session
    settings: Settings
    worker: Worker
    desk: Desk
    metrics: Metrics
    not_ready: GlimmerError | None
    writes: Writes | None = None
    refreshing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(
        cls, session: Session, settings: Settings, *, not_ready: GlimmerError | None = None,
        writer: Writer | None = None,
    ) -> Service:
        """With a line and a worker, which has not been started yet; a `writer` is let go at the server's end."""
        shape = session.bundle.manifest.model
        longest_row = shape.num_retrieved * (shape.question_length + shape.passage_length)
        line = Line(
            settings.max_queue, settings.max_batch_tokens or ROWS_OF_A_BATCH * longest_row, settings.window_ms / 1e3
        )
        metrics = Metrics(session, line)
        worker = Worker(session, line, settings.mass, metrics.batch)
        writes = None if writer is None else Writes(session, writer, settings.timeout_s, metrics.written)
        desk = Desk(session, line, worker, settings.timeout_s)
        return cls(session, settings, worker, desk, metrics, not_ready, writes)

    def stop(self) -> None:
        """Finish what was asked and what is being written; no more is taken."""
        self.worker.stop()
        if self.writes is not None:
            self.writes.close()

    @property
    def name(self) -> str:
        """What the bundle is called: the last part of its path."""
        return self.session.bundle.directory.absolute().name

    @property
    def places(self) -> tuple[str, ...]:
        """The host's paths that errors may name."""
        store = self.session.store
        found = [self.session.bundle.directory, *([] if store is None else [store.directory])]
        return tuple(os.fspath(path) for place in found for path in (place, place.absolute(), place.resolve()))

    def check_ready(self) -> None:
        """Raise ServingError 503 if questions cannot be taken."""
        if self.worker.failure is not None:
            raise ServingError(503, type(self.worker.failure).__name__, "the session could not be warmed up")
        if self.not_ready is not None:
            raise ServingError(503, type(self.not_ready).__name__, "the bundle has no parity record that witnesses it")
        if not self.worker.is_warm.is_set():
            raise ServingError(503, "WarmingUp", "not yet warmed up", retry_after_s=1)

    def refused(self, status: int, request_id: str) -> None:
        """Count and log what did not come to be a request."""
        self.metrics.request("", status, 0.0)
        log_refused(request_id, status)

    def note(self, request: Request, asked: list[Asked]) -> None:
        """Have the log say what was asked: how much of it, and the questions themselves only if it may have them."""
        request.state.num_questions = len(asked)
        if self.settings.log_questions:
            request.state.questions = [item.question for item in asked]


async def read_body(request: Request, model: type[Model]) -> Model:
    """The body as a model; raises ServingError 400 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ServingError(415, "NotJson", "send JSON, and say so: Content-Type: application/json")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error) from None


def as_json(content: BaseModel, *, exclude_none: bool = False) -> Response:
    """A model as a response."""
    return Response(content.model_dump_json(exclude_none=exclude_none), media_type="application/json")


def service_of(request: Request) -> Service:
    """That of the application."""
    found: Service = request.app.state.service
    return found
