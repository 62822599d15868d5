"""POST /v1/rerank: documents by what stage A thinks of them, in the shape that rerankers' clients send and read."""

from __future__ import annotations

import numpy as np
from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.answer import RankedPassage
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.serving.batching import Work
from glimmer_export.runtime.serving.exchange import Asked
from glimmer_export.runtime.serving.models import DocumentOut, RerankIn, RerankOut, RerankResult, given_of
from glimmer_export.runtime.serving.service import as_json, read_body, service_of

__all__ = ["rerank", "rerank_v2"]


async def rerank(request: Request) -> Response:
    """Order documents by their relevance to a query."""
    service, body = service_of(request), await read_body(request, RerankIn)
    shape = service.session.bundle.manifest.model
    if not shape.traits.selects:
        raise OptionError(
            "rerank", expected="a bundle whose architecture ranks passages", found=shape.architecture,
            fix="serve a GLIMMER",
        )
    service.check_ready()
    asked = [Asked(body.query, [given_of(document) for document in body.documents])]
    service.note(request, asked)
    ranked: tuple[RankedPassage, ...] = ()
    async for told in service.desk.ask(request, asked, Work(ranks_only=True)):
        if told.answer is not None:
            ranked = told.answer.passages
    scores = np.array([item.score for item in ranked], np.float64)
    relevance = np.exp(scores - scores.max())
    relevance /= relevance.sum()
    order = np.argsort(-scores, kind="stable")[: body.top_n].tolist()
    results = [
        RerankResult(
            index=place, relevance_score=float(relevance[place]), score=float(scores[place]),
            document=DocumentOut.of(ranked[place].passage) if body.return_documents else None,
        )
        for place in order
    ]
    content = RerankOut(id=request.state.request_id, model=service.name, results=results)
    return as_json(content, exclude_none=True)


async def rerank_v2(request: Request) -> Response:
    """The same, at the address of version 2 of Cohere's interface."""
    return await rerank(request)
