"""Every error as one JSON shape, with a status that says whose it is, and nothing of the host in it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from glimmer_export.runtime.contract import (
    DeviceMemoryError,
    GlimmerError,
    OptionError,
    PassageError,
    QuestionError,
)
from glimmer_export.runtime.serving.models import ErrorBody, ErrorOut

__all__ = ["ServingError", "error_response", "invalid", "of_glimmer", "shutting_down", "without_places", "writes_off"]

ASKED_WRONG = (OptionError, PassageError, QuestionError)
"""Errors of what was asked; all others are the server's."""
STORE_PLACE = "the store"
MAX_NAME = 100
"""Characters of a field's name, which may be a client's own."""


class ServingError(Exception):
    """What a client is told: a status of HTTP, a type that programs can go by, and a message for people."""

    def __init__(
        self, status: int, kind: str, message: str, *, retry_after_s: int | None = None, close: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.message = status, kind, message
        self.retry_after_s, self.close = retry_after_s, close

    def body(self, request_id: str) -> ErrorOut:
        """As it is sent."""
        return ErrorOut(error=ErrorBody(type=self.kind, message=self.message, request_id=request_id))

    def headers(self) -> dict[str, str]:
        """What goes with it."""
        found: dict[str, str] = {}
        if self.retry_after_s is not None:
            found["retry-after"] = str(self.retry_after_s)
        if self.status == 401:
            found["www-authenticate"] = "Bearer"
        if self.close:
            found["connection"] = "close"
        return found


def error_response(error: ServingError, request_id: str) -> Response:
    """The whole response."""
    content = error.body(request_id).model_dump_json()
    return Response(content, error.status, error.headers(), media_type="application/json")


def of_glimmer(error: Exception, *places: str) -> ServingError:
    """What a client is told of an error of the runtime: all of it if it is theirs, else only that there was one.

    `places` are the host's own paths, which are not named.
    """
    if isinstance(error, ServingError):
        return error
    if isinstance(error, ASKED_WRONG):
        return ServingError(400, type(error).__name__, without_places(str(error), *places))
    if isinstance(error, DeviceMemoryError):
        return ServingError(
            503, "DeviceMemoryError", "the device's memory does not hold this now; ask for less, or later",
            retry_after_s=1,
        )
    kind = type(error).__name__ if isinstance(error, GlimmerError) else "InternalError"
    return ServingError(500, kind, "the server failed; its log says more under this request_id")


def without_places(message: str, *places: str) -> str:
    """A message that does not name the host's own paths."""
    for place in sorted(places, key=len, reverse=True):
        message = message.replace(place, STORE_PLACE)
    return message


def shutting_down() -> ServingError:
    """What whoever asks a server that ends is told."""
    return ServingError(503, "ShuttingDown", "the server takes no more questions", close=True)


def writes_off() -> ServingError:
    """What whoever would write is told by a server that takes no writes."""
    return ServingError(
        403, "WritesOff", "this server takes no writes; `glimmer-export serve --write-token-file` has them", close=True
    )


def invalid(error: ValidationError) -> ServingError:
    """A body that is not as the schema has it: the first few faults, without what was sent."""
    found: list[Any] = error.errors(include_url=False, include_context=False, include_input=False)
    faults = [f"{'.'.join(map(str, item['loc']))[:MAX_NAME] or 'body'}: {item['msg']}" for item in found[:5]]
    if len(found) > len(faults):
        faults.append(f"and {len(found) - len(faults)} more")
    return ServingError(400, "InvalidRequest", "; ".join(faults))
