"""Every address: what takes it, the models of what goes in and out, and the errors to be expected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.serving.answering import answer
from glimmer_export.runtime.serving.chat import chat
from glimmer_export.runtime.serving.chat_models import ChatChunk, ChatIn, ChatOut
from glimmer_export.runtime.serving.models import (
    AnswerEvent,
    AnswerIn,
    AnswerList,
    AnswerOut,
    DeleteIn,
    Health,
    PassageOut,
    PassagesIn,
    Refreshed,
    RerankIn,
    RerankOut,
    TokenEvent,
    WrittenOut,
)
from glimmer_export.runtime.serving.reranking import rerank, rerank_v2
from glimmer_export.runtime.serving.upkeep import healthz, metrics, passage, readyz, refresh
from glimmer_export.runtime.serving.writing import (
    delete_passage,
    delete_passages,
    post_passages,
    put_passages,
)

__all__ = ["ENDPOINTS", "Endpoint"]

ANSWERING = (400, 408, 413, 415, 429, 500, 503, 504)
WRITING = (400, 408, 413, 415, 429, 500, 503, 507)


@dataclass(frozen=True)
class Endpoint:
    """`gives` are the models of a response, any one of them; `streams` those of its events, if it has any.

    What `writes` asks for the token of writes.
    """

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    takes: type[BaseModel] | None
    gives: tuple[type[BaseModel], ...]
    errors: tuple[int, ...] = ()
    streams: tuple[type[BaseModel], ...] = ()
    writes: bool = False

    @property
    def route(self) -> str:
        """The path as starlette has it: an id may have slashes in it."""
        return self.path.replace("{id}", "{id:path}")


ENDPOINTS = (
    Endpoint("POST", "/v1/answer", answer, AnswerIn, (AnswerOut, AnswerList), ANSWERING, (TokenEvent, AnswerEvent)),
    Endpoint("POST", "/v1/rerank", rerank, RerankIn, (RerankOut,), ANSWERING),
    Endpoint("POST", "/v2/rerank", rerank_v2, RerankIn, (RerankOut,), ANSWERING),
    Endpoint("POST", "/v1/chat/completions", chat, ChatIn, (ChatOut,), ANSWERING, (ChatChunk,)),
    Endpoint("GET", "/v1/passages/{id}", passage, None, (PassageOut,), (400, 404, 500)),
    Endpoint("POST", "/v1/passages", post_passages, PassagesIn, (WrittenOut,), (*WRITING, 409), writes=True),
    Endpoint("PUT", "/v1/passages", put_passages, PassagesIn, (WrittenOut,), WRITING, writes=True),
    Endpoint("DELETE", "/v1/passages", delete_passages, DeleteIn, (WrittenOut,), (*WRITING, 404), writes=True),
    Endpoint(
        "DELETE", "/v1/passages/{id}", delete_passage, None, (WrittenOut,), (400, 404, 429, 500, 503, 507), writes=True
    ),
    Endpoint("POST", "/v1/refresh", refresh, None, (Refreshed,), (400, 500)),
    Endpoint("GET", "/healthz", healthz, None, (Health,)),
    Endpoint("GET", "/readyz", readyz, None, (Health,), (503,)),
    Endpoint("GET", "/metrics", metrics, None, ()),
)
