"""The schema at /openapi.json, from the endpoints and the models that check what they take."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from glimmer_export.runtime.serving.endpoints import ENDPOINTS, Endpoint
from glimmer_export.runtime.serving.guard import OPEN_PATHS
from glimmer_export.runtime.serving.models import ErrorOut

__all__ = ["openapi"]

REFERENCE = "#/components/schemas/{model}"
API_VERSION = "1"
"""That of the paths, /v1: the package's own is no client's business."""
COMMON_ERRORS = (401, 403)
"""Of a server that asks for a token, and of one that answers to localhost alone."""


def openapi(*, asks_for_token: bool) -> dict[str, Any]:
    """The whole document, of OpenAPI 3.1, for a server with a token or for one without."""
    taken = {item.takes for item in ENDPOINTS if item.takes is not None}
    given = {model for item in ENDPOINTS for model in (*item.gives, *item.streams)} | {ErrorOut}
    models: list[tuple[type[BaseModel], Any]] = [
        *((model, "validation") for model in sorted(taken, key=lambda model: model.__name__)),
        *((model, "serialization") for model in sorted(given, key=lambda model: model.__name__)),
    ]
    _, definitions = models_json_schema(models, ref_template=REFERENCE)
    paths: dict[str, Any] = {}
    for item in ENDPOINTS:
        paths.setdefault(item.path, {})[item.method.lower()] = _operation(item, asks_for_token=asks_for_token)
    return {
        "openapi": "3.1.0",
        "info": {"title": "glimmer-export serve", "version": API_VERSION},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "write_token": {"type": "http", "scheme": "bearer", "description": "Of --write-token-file."},
            },
        },
    }


def _operation(item: Endpoint, *, asks_for_token: bool) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if item.gives:
        content["application/json"] = {"schema": _any_of(item.gives)}
    else:
        content["text/plain"] = {"schema": {"type": "string"}}
    if item.streams:
        content["text/event-stream"] = {
            "schema": {"description": "Events, each with JSON for its data."},
            "x-events": [_reference(model) for model in item.streams],
        }
    errors = sorted({*item.errors, *(() if item.path in OPEN_PATHS else COMMON_ERRORS)})
    responses = {"200": {"description": "OK", "content": content}} | {
        str(status): {
            "description": HTTPStatus(status).phrase,
            "content": {"application/json": {"schema": _reference(ErrorOut)}},
        }
        for status in errors
    }
    operation: dict[str, Any] = {
        "operationId": item.handler.__name__,
        "summary": (item.handler.__doc__ or "").strip(),
        "responses": responses,
    }
    if "{id}" in item.path:
        operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    if item.takes is not None:
        operation["requestBody"] = {
            "required": True, "content": {"application/json": {"schema": _reference(item.takes)}}
        }
    if item.writes:
        operation["security"] = [{"write_token": []}]
    elif asks_for_token and item.path not in OPEN_PATHS:
        operation["security"] = [{"token": []}]
    return operation


def _any_of(models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
    return _reference(models[0]) if len(models) == 1 else {"anyOf": [_reference(model) for model in models]}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}
