"""What every request passes before it is looked at: an id, the host's name, a token, and bounds of its body."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glimmer_export.runtime.serving.errors import ServingError, error_response, shutting_down, writes_off
from glimmer_export.runtime.serving.page import PAGE_PATHS
from glimmer_export.runtime.serving.settings import Settings

__all__ = ["Guard"]

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"}) | PAGE_PATHS
"""What says nothing of the store, of questions or of who asks."""
PASSAGES = "/v1/passages"
READS = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
OTHER_SITES = frozenset({"cross-site", "same-site"})
"""What browsers say of a request, of which no script can change it: pages of another port are `same-site`."""
Observe = Callable[[Scope, int, float], None]
"""Told of a request's scope, its status and its seconds."""


class Guard:
    """The outermost application. A request's id is in `scope["state"]["request_id"]` and in the response.

    Where there is no token, a page of a browser must not reach this server under another name than this machine's:
    only a request whose Host is that is taken. So that a page cannot send one unseen either, a body must be said to be
    JSON, which browsers ask leave for; and for a POST that has none, they say that it is another site's.

    What changes passages asks for `write_token`, whether there is a `token` or not, and for no other.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, token: bytes | None, write_token: bytes | None, observe: Observe
    ) -> None:
        self._app, self._settings, self._observe = app, settings, observe
        self._token, self._write_token = token, write_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises what the application raises once its response has begun; before, that is a 500.

        What is cancelled before its response has begun is a 503: the server ends.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, complete = time.monotonic(), 0, False
        headers = Headers(scope=scope)
        request_id = headers.get("x-request-id", "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def answer(message: Message) -> None:
            nonlocal status, complete
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = MutableHeaders(scope=message)
                sent["x-request-id"] = request_id
                sent.setdefault("x-content-type-options", "nosniff")
                sent.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check(scope["method"], scope["path"], headers)
            await self._app(scope, self._bounded(receive), answer)
        except ServingError as error:
            if not status:
                await error_response(error, request_id)(scope, receive, answer)
        except asyncio.CancelledError:
            if complete:
                return
            if status:
                raise
            await error_response(shutting_down(), request_id)(scope, receive, answer)
        except Exception:
            if complete:  # it was answered, and logged
                return
            logger.exception("request %s failed", request_id)
            if status:
                raise
            failed = ServingError(500, "InternalError", "the server failed; its log says more under this request_id")
            await error_response(failed, request_id)(scope, receive, answer)
        finally:
            self._observe(scope, status, time.monotonic() - begun)

    def _check(self, method: str, path: str, headers: Headers) -> None:
        if self._token is None and self._settings.is_loopback:
            host = headers.get("host", "localhost").lower()
            if not {host, host.rpartition(":")[0]} & {*LOCAL_NAMES, self._settings.host.lower()}:
                raise ServingError(
                    403, "OtherHost", "without a token this server answers to localhost alone", close=True
                )
        is_write = path.startswith(PASSAGES) and method not in READS
        if is_write and self._write_token is None:
            raise writes_off()
        token = self._write_token if is_write else self._token
        if token is None and method == "POST" and headers.get("sec-fetch-site") in OTHER_SITES:
            named = self._settings.cors_origins
            if "*" not in named and headers.get("origin") not in named:
                raise ServingError(403, "OtherSite", "this server takes nothing from other sites' pages", close=True)
        if token is not None and path not in OPEN_PATHS and method != "OPTIONS":
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # latin-1 is what headers are in, and takes any of them
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), token):
                whose = "writes ask for a token of their own" if is_write else "this server asks for its token"
                raise ServingError(401, "Unauthorized", f"{whose}: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:19]) > self._settings.max_body_bytes:
            raise self._too_large()

    def _bounded(self, receive: Receive) -> Receive:
        """Counts the body, whose length need not be said beforehand."""
        total = 0

        async def bounded() -> Message:
            nonlocal total
            message = await receive()
            if message["type"] == "http.request":
                total += len(message.get("body", b""))
                if total > self._settings.max_body_bytes:
                    raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> ServingError:
        return ServingError(
            413, "BodyTooLarge", f"a body of at most {self._settings.max_body_bytes} bytes is taken", close=True
        )
