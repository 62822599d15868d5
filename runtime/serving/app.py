"""The application: the endpoints, behind what every request passes, and what an error becomes."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.serving.endpoints import ENDPOINTS
from glimmer_export.runtime.serving.errors import ServingError, error_response, of_glimmer
from glimmer_export.runtime.serving.exchange import ClientLeftError
from glimmer_export.runtime.serving.guard import Guard
from glimmer_export.runtime.serving.log import log_request
from glimmer_export.runtime.serving.openapi import openapi
from glimmer_export.runtime.serving.page import page_routes
from glimmer_export.runtime.serving.service import Service, service_of

__all__ = ["create_app"]

logger = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""What logs and metrics have of a request that nobody waited for."""
KINDS = {404: "NotFound", 405: "MethodNotAllowed"}


def create_app(service: Service, token: bytes | None = None, write_token: bytes | None = None) -> ASGIApp:
    """The whole application, which starts the worker, and at its end has it finish what waits.

    Where there is a `token`, clients must show it; without a `write_token` no passage is written.
    """
    schema = openapi(asks_for_token=token is not None)
    methods = ["GET", "POST"] if write_token is None else ["GET", "POST", "PUT", "DELETE"]

    async def openapi_json(_request: Request) -> Response:
        return JSONResponse(schema)

    paths: dict[Any, str] = {endpoint.handler: endpoint.path for endpoint in ENDPOINTS}
    app = Starlette(
        routes=[
            *(Route(endpoint.route, endpoint.handler, methods=[endpoint.method]) for endpoint in ENDPOINTS),
            Route("/openapi.json", openapi_json),
            *page_routes(),
        ],
        exception_handlers={
            HTTPException: _on_http, ServingError: _on_error, GlimmerError: _on_error, ClientLeftError: _on_left,
            ClientDisconnect: _on_left, Exception: _on_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service

    def observe(scope: Scope, status: int, seconds: float) -> None:
        service.metrics.request(paths.get(scope.get("endpoint"), ""), status, seconds)
        log_request(scope, status, seconds)

    async def with_worker(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(service, receive, send)
        else:
            await app(scope, receive, send)

    guarded = Guard(with_worker, service.settings, token, write_token, observe)
    origins = service.settings.cors_origins
    if not origins:
        return guarded
    return CORSMiddleware(
        guarded, allow_origins=origins, allow_methods=methods,
        allow_headers=["authorization", "content-type", "x-request-id"], expose_headers=["x-request-id"],
    )


async def _live(service: Service, receive: Receive, send: Send) -> None:
    """ASGI's lifespan: the worker's. If it is cancelled, the server ends at once, and nothing is waited for."""
    await receive()
    service.worker.start()
    await send({"type": "lifespan.startup.complete"})
    try:
        await receive()
    except asyncio.CancelledError:
        return
    await asyncio.to_thread(service.stop)
    await send({"type": "lifespan.shutdown.complete"})


async def _on_http(request: Request, error: Exception) -> Response:
    """What starlette says of a path or a method."""
    assert isinstance(error, HTTPException)
    found = ServingError(error.status_code, KINDS.get(error.status_code, "HttpError"), error.detail)
    response = error_response(found, request.state.request_id)
    response.headers.update(error.headers or {})
    return response


async def _on_error(request: Request, error: Exception) -> Response:
    """What is told of an error of ours or the runtime's; what is no client's business is in the log."""
    found = of_glimmer(error, *service_of(request).places)
    if found.status == 500:
        logger.error("request %s failed", request.state.request_id, exc_info=error)
    return error_response(found, request.state.request_id)


async def _on_left(_request: Request, _error: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=CLIENT_LEFT)
