"""POST /v1/answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.serving.batching import Work
from glimmer_export.runtime.serving.exchange import Asked, Told
from glimmer_export.runtime.serving.models import (
    AnswerEvent,
    AnswerIn,
    AnswerList,
    AnswerOut,
    TokenEvent,
    given_of,
)
from glimmer_export.runtime.serving.service import as_json, read_body, service_of
from glimmer_export.runtime.serving.streams import EventStream, begun, event

__all__ = ["answer"]


async def answer(request: Request) -> Response:
    """Answer one question, or several."""
    service, body = service_of(request), await read_body(request, AnswerIn)
    service.check_ready()
    questions = [body.question] if isinstance(body.question, str) else body.question
    given = None if body.passages is None else [given_of(document) for document in body.passages]
    asked = [Asked(question, given) for question in questions]
    service.note(request, asked)
    work = Work(top_k=body.top_k, top_m=body.top_m)
    # Of an answer that may be kept back, nothing is told before it is known.
    told = service.desk.ask(request, asked, work, stream=body.stream and body.min_log_probability is None)
    if body.stream:
        return EventStream(_events(await begun(told), body.min_log_probability), request, service.places, "error")
    found: dict[int, AnswerOut] = {}
    async for item in told:
        if item.answer is not None:
            found[item.index] = AnswerOut.of(item.answer, body.min_log_probability)
    answers = [found[index] for index in range(len(asked))]
    return as_json(answers[0] if isinstance(body.question, str) else AnswerList(answers=answers))


async def _events(told: AsyncIterator[Told], min_log_probability: float | None) -> AsyncIterator[bytes]:
    """`token` with what an answer grows by, and `answer` with all of it; their `index` is the question's."""
    async for item in told:
        if item.answer is None:
            yield event(TokenEvent(index=item.index, text=item.text), "token")
            continue
        found = AnswerOut.of(item.answer, min_log_probability)
        if min_log_probability is not None and found.answer:
            yield event(TokenEvent(index=item.index, text=found.answer), "token")
        yield event(AnswerEvent(index=item.index, answer=found), "answer")
