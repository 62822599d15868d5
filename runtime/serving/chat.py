"""POST /v1/chat/completions: a question as OpenAI's clients send it, and its answer as they read it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.answer import Answer
from glimmer_export.runtime.serving.batching import Work
from glimmer_export.runtime.serving.chat_models import (
    Annotation,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatDelta,
    ChatIn,
    ChatMessageOut,
    ChatOut,
    CitedPassage,
    UrlCitation,
    Usage,
)
from glimmer_export.runtime.serving.errors import ServingError
from glimmer_export.runtime.serving.exchange import Asked, Told
from glimmer_export.runtime.serving.service import Service, as_json, read_body, service_of
from glimmer_export.runtime.serving.streams import EventStream, begun, event

__all__ = ["chat"]


async def chat(request: Request) -> Response:
    """Answer the last message of the user, from the store; what was said before is not read."""
    service, body = service_of(request), await read_body(request, ChatIn)
    service.check_ready()
    question = body.question()
    if question is None:
        raise ServingError(400, "InvalidRequest", "messages: expected one of the user with some text")
    asked = [Asked(question)]
    service.note(request, asked)
    told = service.desk.ask(request, asked, Work(), stream=bool(body.stream))
    reply = _Reply(service, request, question)
    if body.stream:
        options = body.stream_options
        usage = options is not None and bool(options.include_usage)
        return EventStream(reply.chunks(await begun(told), usage=usage), request, service.places, None)
    found = [item.answer async for item in told if item.answer is not None]
    return as_json(reply.whole(found[0]))


class _Reply:
    """One answer as OpenAI has them."""

    def __init__(self, service: Service, request: Request, question: str) -> None:
        self._service, self._question = service, question
        self._id, self._created = f"chatcmpl-{request.state.request_id}", int(time.time())

    def whole(self, found: Answer) -> ChatOut:
        """All of it at once."""
        text = found.answer or ""
        message = ChatMessageOut(content=text, annotations=_annotations(found))
        choice = ChatChoice(message=message, finish_reason=self._finish(found))
        return ChatOut(
            id=self._id, created=self._created, model=self._service.name, choices=[choice], usage=self._usage(found)
        )

    async def chunks(self, told: AsyncIterator[Told], *, usage: bool) -> AsyncIterator[bytes]:
        """Chunks whose contents, joined, are the answer; the last has the citations."""
        yield self._chunk(ChatDelta(role="assistant", content=""))
        async for item in told:
            if item.answer is None:
                yield self._chunk(ChatDelta(content=item.text))
                continue
            yield self._chunk(ChatDelta(annotations=_annotations(item.answer)), self._finish(item.answer))
            if usage:
                yield event(self._of([], self._usage(item.answer)))
        yield event("[DONE]")

    def _chunk(self, delta: ChatDelta, finish: str | None = None) -> bytes:
        return event(self._of([ChatChunkChoice(delta=delta, finish_reason=finish)], None))

    def _of(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        return ChatChunk(
            id=self._id, created=self._created, model=self._service.name, choices=choices, usage=usage
        )

    def _finish(self, found: Answer) -> str:
        most = self._service.session.bundle.manifest.model.max_new_tokens
        return "length" if len(found.token_ids) >= most else "stop"

    def _usage(self, found: Answer) -> Usage:
        asked, said = len(self._service.session.text.question(self._question)), len(found.token_ids)
        return Usage(prompt_tokens=asked, completion_tokens=said, total_tokens=asked + said)


def _annotations(found: Answer) -> list[Annotation]:
    """The passages that were read, each as a citation of the whole answer."""
    length = len(found.answer or "")
    return [
        Annotation(
            url_citation=UrlCitation(
                url=f"/v1/passages/{quote(str(item.passage.id), safe='')}", title=item.passage.title, start_index=0,
                end_index=length,
            ),
            passage=CitedPassage(id=item.passage.id, text=item.passage.text, score=item.score),
        )
        for item in found.read_passages
    ]
