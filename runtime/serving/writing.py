"""POST, PUT and DELETE /v1/passages: what a change of the store is asked by, and what is said of it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.contract import (
    BusyError,
    CorpusError,
    GlimmerError,
    OutputError,
    PassageError,
    TakenIdError,
)
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.serving.errors import ServingError, without_places, writes_off
from glimmer_export.runtime.serving.models import DeleteIn, PassageIn, PassagesIn, WrittenOut
from glimmer_export.runtime.serving.service import as_json, read_body, service_of
from glimmer_export.runtime.serving.upkeep import find_passage
from glimmer_export.runtime.writes import Writer, Written

__all__ = ["delete_passage", "delete_passages", "post_passages", "put_passages"]

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
SHOWN = 80
"""Characters of an id that an error says back."""


async def post_passages(request: Request) -> Response:
    """Add a passage, or several; if the store has the id of one, none of them is added."""
    return await _put(request, in_place=False)


async def put_passages(request: Request) -> Response:
    """Put a passage, or several, in the place of those that have their ids, if there are any."""
    return await _put(request, in_place=True)


async def delete_passages(request: Request) -> Response:
    """Delete passages by their ids; if the store has not one of them, none is deleted."""
    body = await read_body(request, DeleteIn)
    ids = list(dict.fromkeys(body.ids))
    return await _change(request, ids, lambda writer: writer.delete(ids))


async def delete_passage(request: Request) -> Response:
    """Delete a passage by its id. Of an id in digits, the text "1" goes before the number 1."""
    given = request.path_params["id"]
    found = await asyncio.to_thread(find_passage, service_of(request), given)
    ids = [given if found is None or found.id is None else found.id]
    return await _change(request, ids, lambda writer: writer.delete(ids))


async def _put(request: Request, *, in_place: bool) -> Response:
    body = (await read_body(request, PassagesIn)).root
    given = [body] if isinstance(body, PassageIn) else body
    passages = [Passage(item.id, item.title, item.text, item.wikipedia_id) for item in given]
    seen: set[int | str] = set()
    for item in given:
        if item.id in seen:
            raise ServingError(400, "InvalidRequest", f"passages: two of them have the id {_shown(item.id)}")
        seen.add(item.id)
    return await _change(request, [item.id for item in given], lambda writer: writer.put(passages, replace=in_place))


async def _change(request: Request, ids: Sequence[int | str], change: Callable[[Writer], Written]) -> Response:
    service = service_of(request)
    if service.writes is None:
        raise writes_off()
    try:
        written = await service.writes.make(request, change)
    except GlimmerError as error:
        raise _told(error) or error from error
    request.state.generation = written.generation
    warnings = tuple(without_places(warning, *service.places) for warning in written.warnings)
    return as_json(WrittenOut.of(replace(written, warnings=warnings), ids))


def _told(error: GlimmerError) -> ServingError | None:
    """What a client is told of a refused write, None if it is no client's business; nothing of the host is in it."""
    place = error.subject.rpartition(", ")[2]  # a line, or a passage: what comes before is the host's
    if isinstance(error, TakenIdError):
        return ServingError(409, "TakenIdError", f"{place[:SHOWN]}: the store has it; PUT puts this in its place")
    if isinstance(error, CorpusError):
        return ServingError(400, "CorpusError", f"{place[:SHOWN]}: expected {error.expected}, found {error.found}")
    if isinstance(error, PassageError):
        status = 404 if error.found == "none" else 400
        wanted = "an id that the store has" if status == 404 else error.expected
        return ServingError(status, "PassageError", f"{error.subject[:SHOWN]}: expected {wanted}, found {error.found}")
    if isinstance(error, BusyError):
        return ServingError(
            503, "BusyError", "another process is changing the store; send this again later", retry_after_s=1
        )
    cause = error.__cause__
    if isinstance(error, OutputError) and isinstance(cause, OSError) and cause.errno in FULL:
        return ServingError(507, "OutputError", "the store's disk is full; the store is as it was")
    return None


def _shown(identifier: int | str) -> str:
    return repr(identifier)[:SHOWN]
