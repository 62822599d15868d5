"""The application: what each address takes and gives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from glimmer_export.runtime.contract import GlimmerError, PassageError
from glimmer_export.runtime.serving.batching import Line, Work
from glimmer_export.runtime.serving.errors import ServingError, error_response, invalid, of_glimmer
from glimmer_export.runtime.serving.exchange import Asked, ClientLeftError, Desk
from glimmer_export.runtime.serving.guard import Guard
from glimmer_export.runtime.serving.models import AnswerIn, AnswerList, AnswerOut, Health, PassageOut, given_of
from glimmer_export.runtime.serving.settings import Settings
from glimmer_export.runtime.serving.worker import Worker
from glimmer_export.runtime.session import Session

__all__ = ["Service", "create_app"]

Model = TypeVar("Model", bound=BaseModel)
ROWS_OF_A_BATCH = 8
"""Of the greatest length: what a batch takes if nothing else is said."""


@dataclass(frozen=True)
class Service:
    """What the routes work with."""

    session: Session
    settings: Settings
    worker: Worker
    desk: Desk
    not_ready: GlimmerError | None

    @classmethod
    def of(cls, session: Session, settings: Settings, *, not_ready: GlimmerError | None = None) -> Service:
        """With a line and a worker, which has not been started yet."""
        shape = session.bundle.manifest.model
        longest_row = shape.num_retrieved * (shape.question_length + shape.passage_length)
        line = Line(
            settings.max_queue, settings.max_batch_tokens or ROWS_OF_A_BATCH * longest_row, settings.window_ms / 1e3
        )
        worker = Worker(session, line)
        return cls(session, settings, worker, Desk(session, line, worker, settings.timeout_s), not_ready)

    @property
    def places(self) -> tuple[str, ...]:
        """The host's paths that errors may name."""
        found = [self.session.bundle.directory, *([self.session.store.directory] if self.session.store else [])]
        return tuple(os.fspath(path) for place in found for path in (place, Path(place).absolute()))

    def check_ready(self) -> None:
        """Raise ServingError 503 if questions cannot be taken."""
        if self.worker.failure is not None:
            raise ServingError(503, type(self.worker.failure).__name__, "the session could not be warmed up")
        if self.not_ready is not None:
            raise ServingError(503, type(self.not_ready).__name__, "the bundle has no parity record that witnesses it")
        if not self.worker.is_warm.is_set():
            raise ServingError(503, "WarmingUp", "not yet warmed up", retry_after_s=1)


async def read_body(request: Request, model: type[Model]) -> Model:
    """The body as a model; raises ServingError 400 or 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ServingError(415, "NotJson", "send JSON, and say so: Content-Type: application/json")
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise invalid(error) from None


def as_json(content: BaseModel, status: int = 200) -> Response:
    """A model as a response."""
    return Response(content.model_dump_json(), status, media_type="application/json")


def service_of(request: Request) -> Service:
    """That of the application."""
    found: Service = request.app.state.service
    return found


async def answer(request: Request) -> Response:
    """Answer one question, or several."""
    service = service_of(request)
    asked = await read_body(request, AnswerIn)
    service.check_ready()
    one = isinstance(asked.question, str)
    questions = [asked.question] if isinstance(asked.question, str) else asked.question
    given = None if asked.passages is None else [given_of(document) for document in asked.passages]
    work = Work(top_k=asked.top_k, top_m=asked.top_m)
    found: dict[int, AnswerOut] = {}
    async for told in service.desk.ask(request, [Asked(question, given) for question in questions], work):
        if told.answer is not None:
            found[told.index] = AnswerOut.of(told.answer, asked.min_log_probability)
    answers = [found[index] for index in range(len(questions))]
    return as_json(answers[0] if one else AnswerList(answers=answers))


async def passage(request: Request) -> Response:
    """A passage of the store by its id; of an id that is a number in digits, the text goes before the number."""
    service, given = service_of(request), request.path_params["id"]
    numbers = [int(given)] if given.lstrip("-").isdecimal() and given.isascii() and len(given) < 20 else []
    for value in (given, *numbers):
        try:
            (found,) = await asyncio.to_thread(service.session.passages, [value])
        except PassageError:
            continue
        return as_json(PassageOut.of(found))
    raise ServingError(404, "PassageError", "the store has no passage of this id")


async def healthz(_request: Request) -> Response:
    """Whether the server lives."""
    return as_json(Health(status="ok"))


async def readyz(request: Request) -> Response:
    """Whether it takes questions."""
    service_of(request).check_ready()
    return as_json(Health(status="ready"))


async def on_http(request: Request, error: Exception) -> Response:
    """What starlette says of a path or a method."""
    assert isinstance(error, HTTPException)
    kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HttpError")
    response = error_response(ServingError(error.status_code, kind, error.detail), request.state.request_id)
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def on_error(request: Request, error: Exception) -> Response:
    """What is told of an error of ours or the runtime's."""
    return error_response(of_glimmer(error, *service_of(request).places), request.state.request_id)


async def on_left(_request: Request, _error: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=499)


def create_app(service: Service, token: bytes | None = None) -> Guard:
    """The whole application, which starts the worker, and at its end has it finish what waits."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        yield
        await asyncio.to_thread(service.worker.stop)

    app = Starlette(
        routes=[
            Route("/v1/answer", answer, methods=["POST"]),
            Route("/v1/passages/{id:path}", passage, methods=["GET"]),
            Route("/healthz", healthz, methods=["GET"]),
            Route("/readyz", readyz, methods=["GET"]),
        ],
        lifespan=lifespan,
        exception_handlers={
            HTTPException: on_http, ServingError: on_error, GlimmerError: on_error, ClientLeftError: on_left,
            ClientDisconnect: on_left,
        },
    )
    app.state.service = service
    return Guard(app, service.settings, token, lambda scope, status, seconds: None)
