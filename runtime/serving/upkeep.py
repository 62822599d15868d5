"""What is not asked of the model: passages, the store's newest generation, health, metrics."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from glimmer_export.runtime.contract import PassageError
from glimmer_export.runtime.serving.errors import ServingError
from glimmer_export.runtime.serving.metrics import CONTENT_TYPE_LATEST
from glimmer_export.runtime.serving.models import INTEGER, Health, PassageOut, Refreshed
from glimmer_export.runtime.serving.service import as_json, service_of

__all__ = ["healthz", "metrics", "passage", "readyz", "refresh"]


async def passage(request: Request) -> Response:
    """A passage of the store by its id. Of an id in digits, the text "1" goes before the number 1."""
    service, given = service_of(request), request.path_params["id"]
    digits = given.removeprefix("-")
    numbers = [int(given)] if digits.isascii() and digits.isdecimal() and len(digits) < 20 else []
    for value in (given, *(number for number in numbers if -INTEGER <= number < INTEGER)):
        try:
            (found,) = await asyncio.to_thread(service.session.passages, [value])
        except PassageError:
            continue
        return as_json(PassageOut.of(found))
    raise ServingError(404, "PassageError", "the store has no passage of this id")


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
