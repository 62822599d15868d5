"""What is not asked of the model: passages, the store's newest generation, health, metrics."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.contract import PassageError
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.serving.errors import ServingError
from glimmer_export.runtime.serving.metrics import CONTENT_TYPE_LATEST
from glimmer_export.runtime.serving.models import INTEGER, Health, PassageOut, Refreshed
from glimmer_export.runtime.serving.service import Service, as_json, service_of

__all__ = ["find_passage", "healthz", "metrics", "passage", "readyz", "refresh"]


async def passage(request: Request) -> Response:
    """A passage of the store by its id. Of an id in digits, the text "1" goes before the number 1."""
    found = await asyncio.to_thread(find_passage, service_of(request), request.path_params["id"])
    if found is None:
        raise ServingError(404, "PassageError", "the store has no passage of this id")
    return as_json(PassageOut.of(found))


def find_passage(service: Service, given: str) -> Passage | None:
    """The passage of an id that stands in a path; None if the store has none. Raises OptionError without a store."""
    digits = given.removeprefix("-")
    numbers = [int(given)] if digits.isascii() and digits.isdecimal() and len(digits) < 20 else []
    ids: list[int | str] = [given, *(number for number in numbers if -INTEGER <= number < INTEGER)]
    for value in ids:
        try:
            return service.session.passages([value])[0]
        except PassageError:
            continue
    return None


async def refresh(request: Request) -> Response:
    """Answer from the store's newest generation from now on; what is being answered is not disturbed."""
    service = service_of(request)
    async with service.refreshing:
        newer = await asyncio.to_thread(service.session.refresh)
    store = service.session.store
    return as_json(Refreshed(changed=newer is not None, generation=0 if store is None else store.manifest.generation))


async def healthz(_request: Request) -> Response:
    """Whether the server lives."""
    return as_json(Health(status="ok"))


async def readyz(request: Request) -> Response:
    """Whether it takes questions: warmed up, and of a bundle that passed its parity gate if that is required."""
    service_of(request).check_ready()
    return as_json(Health(status="ready"))


async def metrics(request: Request) -> Response:
    """Prometheus's text format."""
    return Response(service_of(request).metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
